package sqlite

import (
	"context"
	"database/sql"
	"sync"

	"github.com/portcullis-id/portcullis/store/docsql"
)

// maxStatements bounds the statements that are kept. The documents' own are some
// hundred; what comes beyond is compiled each time.
const maxStatements = 1024

// statements runs each SQL text through a statement that was compiled once:
// compiling costs more than most statements take to run.
type statements struct {
	direct  docsql.Querier
	prepare func(ctx context.Context, query string) (*sql.Stmt, error)

	mu    sync.RWMutex
	known map[string]*sql.Stmt
}

func newStatements(direct docsql.Querier, prepare func(ctx context.Context, query string) (*sql.Stmt, error)) *statements {
	return &statements{direct: direct, prepare: prepare, known: map[string]*sql.Stmt{}}
}

// ExecContext implements docsql.Querier.
func (s *statements) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	st, err := s.get(ctx, query)
	if err != nil {
		return nil, err
	}
	if st == nil {
		return s.direct.ExecContext(ctx, query, args...)
	}
	return st.ExecContext(ctx, args...)
}

// QueryContext implements docsql.Querier.
func (s *statements) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	st, err := s.get(ctx, query)
	if err != nil {
		return nil, err
	}
	if st == nil {
		return s.direct.QueryContext(ctx, query, args...)
	}
	return st.QueryContext(ctx, args...)
}

// get returns nil when no more statements are kept.
func (s *statements) get(ctx context.Context, query string) (*sql.Stmt, error) {
	s.mu.RLock()
	st, full := s.known[query], len(s.known) >= maxStatements
	s.mu.RUnlock()
	if st != nil || full {
		return st, nil
	}
	st, err := s.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.known[query]; old != nil {
		_ = st.Close() // another was faster; nothing used this one
		return old, nil
	}
	s.known[query] = st
	return st, nil
}

// close lets go of all statements, before the connections are closed.
func (s *statements) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for query, st := range s.known {
		_ = st.Close() // the connection's end takes it along otherwise
		delete(s.known, query)
	}
}
