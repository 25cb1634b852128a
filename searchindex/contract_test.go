package searchindex

import (
	"testing"

	"github.com/portcullis-id/portcullis/store"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

// What the search engine finds is what the store finds.
func TestContract(t *testing.T) {
	stores(t, func(t *testing.T, db *store.Store) {
		storetest.RunSearch(t, func(t *testing.T) (tenant.Docs, func()) {
			d, x := open(t, settings(t, engineURL(t)), db)
			register(t, db, "a", "b")
			settle(t, x)
			t.Cleanup(func() {
				if d.fallbacks.Load() > 0 {
					t.Error("the store has answered in the place of the search engine")
				}
			})
			return d, func() { settle(t, x) }
		})
	})
}
