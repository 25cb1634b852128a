package docsql

import (
	"context"
	"fmt"
	"time"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"github.com/portcullis-id/portcullis/store/seal"
	"github.com/portcullis-id/portcullis/tenant"
)

// Expires reports whether documents of a collection end by themselves.
func Expires(c tenant.Collection) bool {
	for _, col := range c.Columns {
		if col.Name == "expires_at" {
			return true
		}
	}
	return false
}

// Purge deletes up to limit rows that expired before now.
func (s *SQL) Purge(ctx context.Context, q Querier, k tenant.Kind, now time.Time, limit int) (int, error) {
	t := quote(string(k))
	res, err := q.ExecContext(ctx, fmt.Sprintf(
		"DELETE FROM %s WHERE (tenant, id) IN (SELECT tenant, id FROM %s WHERE expires_at < %s ORDER BY expires_at LIMIT %d)",
		t, t, s.d.Placeholder(1), limit), now.UnixMilli())
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	return int(n), err
}

// Changes reads what other nodes' caches have to forget, over all tenants, in the
// order in which it was written. The bound keeps a node from reading for ever after
// it was away; who gets limit changes has to forget everything.
func (s *SQL) Changes(ctx context.Context, q Querier, since time.Time, limit int) ([]tenant.Invalidation, error) {
	rows, err := q.QueryContext(ctx, fmt.Sprintf("SELECT tenant, id, %s FROM %s WHERE %s > %s ORDER BY %s LIMIT %d",
		s.d.Doc(), quote(string(tenant.KindChange)), quote("at"), s.d.Placeholder(1), quote("at"), limit), since.UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("read changes: %w", err)
	}
	defer rows.Close()
	var out []tenant.Invalidation
	for rows.Next() {
		var c tenant.Invalidation
		var doc []byte
		if err := rows.Scan(&c.Tenant, &c.ID, &doc); err != nil {
			return nil, fmt.Errorf("read changes: %w", err)
		}
		for _, k := range gjson.GetBytes(doc, "kinds").Array() {
			c.Kinds = append(c.Kinds, tenant.Kind(k.Str))
		}
		out = append(out, c)
	}
	return out, rows.Err()
}

// SetKey notes the key that the database is sealed with.
func (s *SQL) SetKey(ctx context.Context, q Querier, keyID string) error {
	return SetKey(ctx, q, s.d, keyID)
}

// Reseal seals the secrets of up to limit rows again that follow a row in the
// order of tenant and id, and moves that row on. It returns how many rows it
// looked at and how many it changed.
func (s *SQL) Reseal(ctx context.Context, q Querier, k tenant.Kind, next *seal.Sealer, tenantID, id *string, limit int) (looked, changed int, err error) {
	kd, err := s.kind(k)
	if err != nil {
		return 0, 0, err
	}
	type row struct {
		tenant, id string
		doc        []byte
	}
	rows, err := q.QueryContext(ctx, fmt.Sprintf("SELECT tenant, id, %s FROM %s WHERE (tenant, id) > (%s, %s) ORDER BY tenant, id LIMIT %d",
		s.d.Doc(), quote(string(k)), s.d.Placeholder(1), s.d.Placeholder(2), limit), *tenantID, *id)
	if err != nil {
		return 0, 0, err
	}
	defer rows.Close()
	var all []row
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.tenant, &r.id, &r.doc); err != nil {
			return 0, 0, err
		}
		all = append(all, r)
	}
	if err := rows.Err(); err != nil {
		return 0, 0, err
	}
	rows.Close()
	for _, r := range all {
		session := &Session{Tenant: r.tenant, Sealer: next}
		doc, again := r.doc, false
		for _, path := range kd.Sealed {
			v := gjson.GetBytes(doc, path)
			if v.Type != gjson.String || v.Str == "" || next.Current(v.Str) {
				continue
			}
			plain, err := next.Open(v.Str, session.aad(kd, r.id, path))
			if err != nil {
				return looked, changed, fmt.Errorf("open a secret of %s %s: %w", k, r.id, err)
			}
			sealed, err := next.Seal(plain, session.aad(kd, r.id, path))
			if err != nil {
				return looked, changed, err
			}
			if doc, err = sjson.SetBytes(doc, path, sealed); err != nil {
				return looked, changed, err
			}
			again = true
		}
		looked++
		if again {
			// The version stays: the document that rooms see is the same.
			if _, err := q.ExecContext(ctx, fmt.Sprintf("UPDATE %s SET doc = %s WHERE tenant = %s AND id = %s",
				quote(string(k)), s.d.DocParam(s.d.Placeholder(1)), s.d.Placeholder(2), s.d.Placeholder(3)), string(doc), r.tenant, r.id); err != nil {
				return looked, changed, err
			}
			changed++
		}
		*tenantID, *id = r.tenant, r.id
	}
	return looked, changed, nil
}
