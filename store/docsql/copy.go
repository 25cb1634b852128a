package docsql

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-id/portcullis/tenant"
)

// Row is a document as an engine holds it: its secrets are sealed.
type Row struct {
	Tenant, ID string
	Version    int64
	Doc        []byte
}

// Rows reads up to limit rows of a kind that follow one in the engine's own order of
// tenant and id; of one tenant alone unless only is "".
func (s *SQL) Rows(ctx context.Context, q Querier, k tenant.Kind, after Row, only string, limit int) ([]Row, error) {
	where := fmt.Sprintf("(tenant, id) > (%s, %s)", s.d.Placeholder(1), s.d.Placeholder(2))
	args := []any{after.Tenant, after.ID}
	if only != "" {
		where = fmt.Sprintf("tenant = %s AND id > %s", s.d.Placeholder(1), s.d.Placeholder(2))
		args[0] = only
	}
	rows, err := q.QueryContext(ctx, fmt.Sprintf("SELECT tenant, id, version, %s FROM %s WHERE %s ORDER BY tenant, id LIMIT %d", s.d.Doc(), quote(string(k)), where, limit), args...)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", k, err)
	}
	defer rows.Close()
	var out []Row
	for rows.Next() {
		var r Row
		if err := rows.Scan(&r.Tenant, &r.ID, &r.Version, &r.Doc); err != nil {
			return nil, fmt.Errorf("read %s: %w", k, err)
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// Load inserts rows as they are, in one statement.
func (s *SQL) Load(ctx context.Context, q Querier, k tenant.Kind, rows []Row) error {
	kd, err := s.kind(k)
	if err != nil || len(rows) == 0 {
		return err
	}
	var args []any
	for _, r := range rows {
		if !storable(r.ID) || !storableDoc(r.Doc) {
			return fmt.Errorf("load %s %q of tenant %s: %w", k, r.ID, r.Tenant, errNotText())
		}
		args = append(append(args, r.Tenant, r.ID, r.Version, string(r.Doc)), kd.values(r.Doc)...)
	}
	_, err = q.ExecContext(ctx, kd.into+kd.rowsOf(s.d, len(rows)), args...)
	if err != nil {
		return fmt.Errorf("load %s, %d documents from %q of tenant %s on: %w", k, len(rows), rows[0].ID, rows[0].Tenant, err)
	}
	return nil
}

// Clear deletes up to limit rows of one tenant and counts them.
func (s *SQL) Clear(ctx context.Context, q Querier, k tenant.Kind, tenantID string, limit int) (int, error) {
	t := quote(string(k))
	res, err := q.ExecContext(ctx, fmt.Sprintf("DELETE FROM %s WHERE tenant = %s AND id IN (SELECT id FROM %s WHERE tenant = %s LIMIT %d)",
		t, s.d.Placeholder(1), t, s.d.Placeholder(2), limit), tenantID, tenantID)
	if err != nil {
		return 0, fmt.Errorf("clear %s: %w", k, err)
	}
	n, err := res.RowsAffected()
	return int(n), err
}

// Count counts the rows of a kind, over all tenants.
func (s *SQL) Count(ctx context.Context, q Querier, k tenant.Kind) (n int, err error) {
	rows, err := q.QueryContext(ctx, "SELECT COUNT(*) FROM "+quote(string(k)))
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", k, err)
	}
	defer rows.Close()
	if rows.Next() {
		err = rows.Scan(&n)
	}
	if err == nil {
		err = rows.Err()
	}
	return n, err
}

// Meta reads a value that belongs to the whole database; "" when it has none.
func (s *SQL) Meta(ctx context.Context, q Querier, name string) (string, error) {
	return meta(ctx, q, s.d, name)
}

// SetMeta writes a value that belongs to the whole database.
func (s *SQL) SetMeta(ctx context.Context, q Querier, name, value string) error {
	return setMeta(ctx, q, s.d, name, value)
}

// Sum is a checksum of documents that does not depend on their order, for engines
// sort text differently: the sum of their SHA-256, modulo 2^256.
type Sum struct {
	Documents int
	sum       [4]uint64
}

// Add adds a row. The text of a document may differ between engines; what it means
// counts.
func (s *Sum) Add(r Row) error {
	doc, err := canonical(r.Doc)
	if err != nil {
		return fmt.Errorf("the document %q of tenant %s: %w", r.ID, r.Tenant, err)
	}
	var head [24]byte
	binary.BigEndian.PutUint64(head[:], uint64(r.Version)) // #nosec G115 -- only the bits count
	binary.BigEndian.PutUint64(head[8:], uint64(len(r.Tenant)))
	binary.BigEndian.PutUint64(head[16:], uint64(len(r.ID)))
	h := sha256.New()
	for _, part := range [][]byte{head[:], []byte(r.Tenant), []byte(r.ID), doc} {
		h.Write(part)
	}
	d := h.Sum(nil)
	var carry uint64
	for i := 3; i >= 0; i-- {
		s.sum[i], carry = bits.Add64(s.sum[i], binary.BigEndian.Uint64(d[8*i:]), carry)
	}
	s.Documents++
	return nil
}

// String is the checksum in hexadecimal.
func (s *Sum) String() string {
	var out [32]byte
	for i, v := range s.sum {
		binary.BigEndian.PutUint64(out[8*i:], v)
	}
	return hex.EncodeToString(out[:])
}

// canonical is a JSON text with sorted names, no space, and numbers in one form:
// PostgreSQL keeps the meaning of a document and not its text.
func canonical(doc []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	return appendCanonical(nil, v)
}

func appendCanonical(out []byte, v any) ([]byte, error) {
	var err error
	switch v := v.(type) {
	case map[string]any:
		out = append(out, '{')
		for i, name := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				out = append(out, ',')
			}
			if out, err = appendCanonical(out, name); err != nil {
				return nil, err
			}
			out = append(out, ':')
			if out, err = appendCanonical(out, v[name]); err != nil {
				return nil, err
			}
		}
		return append(out, '}'), nil
	case []any:
		out = append(out, '[')
		for i, e := range v {
			if i > 0 {
				out = append(out, ',')
			}
			if out, err = appendCanonical(out, e); err != nil {
				return nil, err
			}
		}
		return append(out, ']'), nil
	case json.Number:
		return append(out, canonicalNumber(v.String())...), nil
	}
	text, err := json.Marshal(v)
	return append(out, text...), err
}

// canonicalNumber writes a number as its digits without zeros at either end, and a
// power of ten: 150, 1.5e2 and 150.0 are 15e1.
func canonicalNumber(n string) string {
	mantissa, power, _ := strings.Cut(strings.ToLower(n), "e")
	exponent := 0
	if power != "" {
		var err error
		if exponent, err = strconv.Atoi(power); err != nil {
			return n // no engine holds such a number
		}
	}
	sign := ""
	if rest, negative := strings.CutPrefix(mantissa, "-"); negative {
		sign, mantissa = "-", rest
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	exponent -= len(fraction)
	short := strings.TrimRight(digits, "0")
	exponent += len(digits) - len(short)
	if short == "" {
		return "0"
	}
	return sign + short + "e" + strconv.Itoa(exponent)
}
