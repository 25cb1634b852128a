package tenant

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/portcullis-id/portcullis/problem"
)

// Load decodes one document inside a transaction.
func Load[T any](tx Tx, k Kind, id string) (*T, error) {
	rec, err := tx.Get(k, id)
	if err != nil {
		return nil, err
	}
	return decode[T](k, rec)
}

// Add inserts v as a document inside a transaction.
func Add(tx Tx, k Kind, id string, v any) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s %s: %w", k, id, err)
	}
	return tx.Insert(k, id, doc)
}

// Set inserts v, or overwrites the document that has the id.
func Set(tx Tx, k Kind, id string, v any) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s %s: %w", k, id, err)
	}
	old, err := tx.Get(k, id)
	if problem.Is(err, problem.NotFound) {
		return tx.Insert(k, id, doc)
	}
	if err != nil {
		return err
	}
	old.Doc = doc
	return tx.Replace(k, old)
}

// Change applies fn to a document inside a transaction and stores the result. An
// error of fn leaves the document alone.
func Change[T any](tx Tx, k Kind, id string, fn func(*T) error) (*T, error) {
	rec, err := tx.Get(k, id)
	if err != nil {
		return nil, err
	}
	v, err := decode[T](k, rec)
	if err != nil {
		return nil, err
	}
	if err := fn(v); err != nil {
		return nil, err
	}
	if rec.Doc, err = json.Marshal(v); err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", k, id, err)
	}
	return v, tx.Replace(k, rec)
}

// Select finds and decodes documents inside a transaction.
func Select[T any](tx Tx, k Kind, q Query) ([]*T, int, error) {
	page, err := tx.Find(k, q)
	if err != nil {
		return nil, 0, err
	}
	return decodeAll[T](k, page)
}

// Get decodes one document.
func Get[T any](ctx context.Context, d Docs, tenant string, k Kind, id string) (*T, error) {
	rec, err := d.Get(ctx, tenant, k, id)
	if err != nil {
		return nil, err
	}
	return decode[T](k, rec)
}

// Find decodes the documents that q selects. The count is that of all matches
// when q asks for it.
func Find[T any](ctx context.Context, d Docs, tenant string, k Kind, q Query) ([]*T, int, error) {
	page, err := d.Find(ctx, tenant, k, q)
	if err != nil {
		return nil, 0, err
	}
	return decodeAll[T](k, page)
}

func decode[T any](k Kind, rec Record) (*T, error) {
	v := new(T)
	if err := json.Unmarshal(rec.Doc, v); err != nil {
		return nil, fmt.Errorf("decode %s %s: %w", k, rec.ID, err)
	}
	return v, nil
}

func decodeAll[T any](k Kind, page Page) ([]*T, int, error) {
	out := make([]*T, len(page.Records))
	for i, rec := range page.Records {
		v, err := decode[T](k, rec)
		if err != nil {
			return nil, 0, err
		}
		out[i] = v
	}
	return out, page.Total, nil
}
