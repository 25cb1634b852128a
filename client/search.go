package client

import (
	"context"
	"net/http"

	"github.com/portcullis-id/portcullis/searchindex"
)

// Search is the state of the search index, over all nodes.
func (l *Local) Search(ctx context.Context) (searchindex.Status, error) {
	var st searchindex.Status
	return st, l.do(ctx, http.MethodGet, LocalHost, "/search", "", nil, &st)
}

// RebuildSearch asks for a new search index, and returns the generation of each
// group that is searched until then.
func (l *Local) RebuildSearch(ctx context.Context) (map[int]int, error) {
	var before map[int]int
	return before, l.do(ctx, http.MethodPost, LocalHost, "/search/rebuild", "", nil, &before)
}
