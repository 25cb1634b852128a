package docsql

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/search"
	"github.com/portcullis-id/portcullis/store/seal"
	"github.com/portcullis-id/portcullis/tenant"
)

// MaxLimit bounds a page.
const MaxLimit = 1000

// Dialect is what the engines' SQL differs in.
type Dialect interface {
	// Placeholder is the n-th bind parameter, from 1.
	Placeholder(n int) string
	// HasTable selects a row when there is a table whose name is the first parameter.
	HasTable() string
	// Doc is the expression that reads the document as text.
	Doc() string
	// DocParam is the bind parameter p as a document.
	DocParam(p string) string
	// JSONMatch is a condition: cond holds for the value at a path, or for one of the
	// values when arrays lie on the path. cond is given the value as lower-case text
	// that is NULL for objects, arrays and null, and as a number that is NULL for all
	// that is none. Names are bound, not pasted.
	JSONMatch(path []string, bind func(any) string, cond func(text, number string) string) string
	// JSONExists is a condition: the path leads to something that is not null.
	JSONExists(path []string, bind func(any) string) string
}

// Querier is a connection or a transaction.
type Querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// SQL holds the statements of every kind for one dialect.
type SQL struct {
	d     Dialect
	kinds map[tenant.Kind]*kind

	indexed atomic.Bool // of Index
}

type kind struct {
	tenant.Collection
	columns                      map[string]tenant.Column
	schema                       search.Schema
	get, insert, replace, delete string
	into                         string                   // "INSERT INTO … VALUES "; rowsOf follows
	inserts                      [len(lots)]func() string // written when they are first needed
}

// lots are the numbers of documents that one statement adds, the largest first: any
// number up to the double is seven statements at most. They are few, as each
// connection keeps each statement that it has prepared.
var lots = [...]int{64, 32, 16, 8, 4, 2, 1}

// New prepares the statements.
func New(d Dialect, collections []tenant.Collection) *SQL {
	s := &SQL{d: d, kinds: map[tenant.Kind]*kind{}}
	for _, c := range collections {
		k := &kind{Collection: c, columns: map[string]tenant.Column{}, schema: c.Schema()}
		names, sets := []string{"tenant", "id", "version", "doc"}, []string{"version = version + 1", "doc = " + d.DocParam(d.Placeholder(1))}
		for i, col := range c.Columns {
			k.columns[col.Name] = col
			names = append(names, quote(col.Name))
			sets = append(sets, quote(col.Name)+" = "+d.Placeholder(2+i))
		}
		n := len(c.Columns)
		t := quote(string(c.Kind))
		k.into = fmt.Sprintf("INSERT INTO %s (%s) VALUES ", t, strings.Join(names, ", "))
		k.get = fmt.Sprintf("SELECT version, %s FROM %s WHERE tenant = %s AND id = %s", d.Doc(), t, d.Placeholder(1), d.Placeholder(2))
		for i, rows := range lots {
			k.inserts[i] = sync.OnceValue(func() string { return k.into + k.rowsOf(d, rows) + " ON CONFLICT DO NOTHING" })
		}
		k.insert = k.inserts[len(lots)-1]()
		k.replace = fmt.Sprintf("UPDATE %s SET %s WHERE tenant = %s AND id = %s AND version = %s", t, strings.Join(sets, ", "), d.Placeholder(n+2), d.Placeholder(n+3), d.Placeholder(n+4))
		k.delete = fmt.Sprintf("DELETE FROM %s WHERE tenant = %s AND id = %s", t, d.Placeholder(1), d.Placeholder(2))
		s.kinds[c.Kind] = k
	}
	return s
}

// rowsOf is the parameters of rows: tenant, id, version, document and the columns of
// each.
func (kd *kind) rowsOf(d Dialect, rows int) string {
	var b strings.Builder
	for r := range rows {
		at := r * (4 + len(kd.Columns))
		if r > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "(%s, %s, %s, %s", d.Placeholder(at+1), d.Placeholder(at+2), d.Placeholder(at+3), d.DocParam(d.Placeholder(at+4)))
		for c := range kd.Columns {
			b.WriteString(", " + d.Placeholder(at+5+c))
		}
		b.WriteString(")")
	}
	return b.String()
}

func quote(name string) string { return `"` + name + `"` }

// errNotText is what both engines say of text that only one of them could take.
func errNotText() error {
	return problem.New(problem.Invalid, "invalid_text", "a text is not UTF-8, or has a NUL character")
}

func storable(s string) bool { return search.Storable(s) }

// storableDoc looks for what PostgreSQL's jsonb refuses: text that is not UTF-8,
// and NUL, which JSON writes as an escape of its own.
func storableDoc(doc []byte) bool {
	if !utf8.Valid(doc) {
		return false
	}
	for rest := doc; ; {
		i := bytes.Index(rest, []byte(`\u0000`))
		if i < 0 {
			return true
		}
		n := 0 // backslashes before it: an odd number of them escapes this one
		for n < i && rest[i-1-n] == '\\' {
			n++
		}
		if n%2 == 0 {
			return false
		}
		rest = rest[i+1:]
	}
}

func (s *SQL) kind(k tenant.Kind) (*kind, error) {
	if kd, ok := s.kinds[k]; ok {
		return kd, nil
	}
	return nil, fmt.Errorf("no kind %q is declared", k)
}

// Index says whether each write of a searchable document leaves an entry in the
// queue of the search index, in the same transaction.
func (s *SQL) Index(on bool) { s.indexed.Store(on) }

// enqueue notes that documents were written. The entries belong to the authority:
// they outlive the tenant, whose documents have to leave the index too.
func (s *Session) enqueue(k tenant.Kind, ids ...string) error {
	if !s.SQL.indexed.Load() || !slices.Contains(tenant.Searchable(), k) {
		return nil
	}
	var queue []tenant.NewDoc
	for _, id := range ids {
		doc, err := json.Marshal(tenant.Indexing{Part: strconv.Itoa(tenant.SearchPart(s.Tenant)), Tenant: s.Tenant, Kind: k, ID: id, At: s.At, DueAt: s.At})
		if err != nil {
			return fmt.Errorf("encode an entry of the search queue: %w", err)
		}
		// The ids are in the order of time, so that the queue is read along its key.
		queue = append(queue, tenant.NewDoc{ID: fmt.Sprintf("%012x-%s", s.At.UnixMilli(), tenant.RandomString(12)), Doc: doc})
	}
	own := *s
	own.Tenant = tenant.Authority
	return own.InsertMissing(tenant.KindSearchQueue, queue)
}

// Session runs the statements of one tenant on a connection.
type Session struct {
	SQL *SQL
	Ctx context.Context
	Q   Querier
	// Adhoc runs statements that come in too many forms to be kept: those with a
	// search query. Nil means Q.
	Adhoc  Querier
	Tenant string
	Sealer *seal.Sealer
	At     time.Time
}

var _ tenant.Tx = (*Session)(nil)

// Now implements tenant.Tx.
func (s *Session) Now() time.Time { return s.At }

func (s *Session) one(query string, args []any, into ...any) (bool, error) {
	return s.oneBy(s.Q, query, args, into...)
}

func (s *Session) oneBy(by Querier, query string, args []any, into ...any) (bool, error) {
	rows, err := by.QueryContext(s.Ctx, query, args...)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	if !rows.Next() {
		return false, rows.Err()
	}
	if err := rows.Scan(into...); err != nil {
		return false, err
	}
	return true, rows.Err()
}

// Get implements tenant.Tx.
func (s *Session) Get(k tenant.Kind, id string) (tenant.Record, error) {
	kd, err := s.SQL.kind(k)
	if err != nil {
		return tenant.Record{}, err
	}
	rec := tenant.Record{ID: id}
	if !storable(id) {
		return rec, problem.New(problem.NotFound, "", "there is no such document").About(string(k))
	}
	found, err := s.one(kd.get, []any{s.Tenant, id}, &rec.Version, &rec.Doc)
	if err != nil {
		return rec, fmt.Errorf("get %s: %w", k, err)
	}
	if !found {
		return rec, problem.New(problem.NotFound, "", "there is no such document").About(string(k))
	}
	rec.Doc, err = s.open(kd, id, rec.Doc)
	return rec, err
}

func (s *Session) aad(kd *kind, id, path string) string {
	return s.Tenant + "|" + string(kd.Kind) + "|" + id + "|" + path
}

func (s *Session) seal(kd *kind, id string, doc []byte) ([]byte, error) {
	for _, path := range kd.Sealed {
		v := gjson.GetBytes(doc, path)
		if v.Type != gjson.String || v.Str == "" {
			continue
		}
		sealed, err := s.Sealer.Seal(v.Str, s.aad(kd, id, path))
		if err != nil {
			return nil, err
		}
		if doc, err = sjson.SetBytes(doc, path, sealed); err != nil {
			return nil, fmt.Errorf("seal %s: %w", path, err)
		}
	}
	return doc, nil
}

func (s *Session) open(kd *kind, id string, doc []byte) ([]byte, error) {
	for _, path := range kd.Sealed {
		v := gjson.GetBytes(doc, path)
		if v.Type != gjson.String || v.Str == "" {
			continue
		}
		plain, err := s.Sealer.Open(v.Str, s.aad(kd, id, path))
		if err != nil {
			return nil, fmt.Errorf("open a secret of %s: %w", kd.Kind, err)
		}
		if doc, err = sjson.SetBytes(doc, path, plain); err != nil {
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
	}
	return doc, nil
}

// columns takes the declared columns out of a document.
func (kd *kind) values(doc []byte) []any {
	out := make([]any, len(kd.Columns))
	for i, c := range kd.Columns {
		out[i] = c.Value(doc)
	}
	return out
}

// Insert implements tenant.Tx.
func (s *Session) Insert(k tenant.Kind, id string, doc []byte) error {
	kd, err := s.SQL.kind(k)
	if err != nil {
		return err
	}
	row, err := s.row(kd, id, doc)
	if err != nil {
		return err
	}
	values := row[4:]
	res, err := s.Q.ExecContext(s.Ctx, kd.insert, row...)
	if err != nil {
		return fmt.Errorf("insert %s: %w", k, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 1 {
		return errors.Join(err, s.enqueue(k, id))
	}
	// Nothing was inserted: either the id is taken, or one of the unique sets.
	var version int64
	var old []byte
	found, err := s.one(kd.get, []any{s.Tenant, id}, &version, &old)
	if err != nil {
		return fmt.Errorf("insert %s: %w", k, err)
	}
	if found {
		return conflict("id")
	}
	subject, err := s.taken(kd, id, values)
	if err != nil {
		return fmt.Errorf("insert %s: %w", k, err)
	}
	return conflict(subject)
}

// firstVersion is that of a document that is new.
const firstVersion = 1

// row is what a document is stored as.
func (s *Session) row(kd *kind, id string, doc []byte) ([]any, error) {
	if !gjson.ValidBytes(doc) {
		return nil, fmt.Errorf("insert %s: the document is not JSON", kd.Kind)
	}
	if !storable(id) || !storableDoc(doc) {
		return nil, errNotText()
	}
	sealed, err := s.seal(kd, id, doc)
	if err != nil {
		return nil, err
	}
	return append([]any{s.Tenant, id, firstVersion, string(sealed)}, kd.values(doc)...), nil
}

// InsertMissing implements tenant.Tx.
func (s *Session) InsertMissing(k tenant.Kind, docs []tenant.NewDoc) error {
	kd, err := s.SQL.kind(k)
	if err != nil {
		return err
	}
	for rest := docs; len(rest) > 0; {
		i := slices.IndexFunc(lots[:], func(n int) bool { return n <= len(rest) })
		var args []any
		for _, d := range rest[:lots[i]] {
			row, err := s.row(kd, d.ID, d.Doc)
			if err != nil {
				return err
			}
			args = append(args, row...)
		}
		if _, err := s.Q.ExecContext(s.Ctx, kd.inserts[i](), args...); err != nil {
			return fmt.Errorf("insert %s: %w", k, err)
		}
		rest = rest[lots[i]:]
	}
	ids := make([]string, len(docs))
	for i, d := range docs {
		ids[i] = d.ID
	}
	return s.enqueue(k, ids...)
}

func conflict(subject string) error {
	return problem.New(problem.Conflict, "conflict", "another document has this %s", subject).About(subject)
}

// taken finds the unique set that another document has, and names its first
// column; "" when there is none.
func (s *Session) taken(kd *kind, id string, values []any) (string, error) {
	for _, set := range kd.Unique {
		where := []string{"tenant = " + s.SQL.d.Placeholder(1), "id <> " + s.SQL.d.Placeholder(2)}
		args := []any{s.Tenant, id}
		for _, name := range set {
			i := slices.IndexFunc(kd.Columns, func(c tenant.Column) bool { return c.Name == name })
			if values[i] == nil {
				where = nil
				break
			}
			args = append(args, values[i])
			where = append(where, quote(name)+" = "+s.SQL.d.Placeholder(len(args)))
		}
		if where == nil {
			continue
		}
		var other string
		found, err := s.one("SELECT id FROM "+quote(string(kd.Kind))+" WHERE "+strings.Join(where, " AND ")+" LIMIT 1", args, &other)
		if err != nil {
			return "", err
		}
		if found {
			return set[0], nil
		}
	}
	return "", nil
}

// Replace implements tenant.Tx.
func (s *Session) Replace(k tenant.Kind, rec tenant.Record) error {
	kd, err := s.SQL.kind(k)
	if err != nil {
		return err
	}
	if !gjson.ValidBytes(rec.Doc) {
		return fmt.Errorf("replace %s: the document is not JSON", k)
	}
	if !storable(rec.ID) || !storableDoc(rec.Doc) {
		return errNotText()
	}
	values := kd.values(rec.Doc)
	if len(kd.Unique) > 0 {
		subject, err := s.taken(kd, rec.ID, values)
		if err != nil {
			return fmt.Errorf("replace %s: %w", k, err)
		}
		if subject != "" {
			return conflict(subject)
		}
	}
	sealed, err := s.seal(kd, rec.ID, rec.Doc)
	if err != nil {
		return err
	}
	args := append([]any{string(sealed)}, values...)
	res, err := s.Q.ExecContext(s.Ctx, kd.replace, append(args, s.Tenant, rec.ID, rec.Version)...)
	if err != nil {
		return fmt.Errorf("replace %s: %w", k, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 1 {
		return errors.Join(err, s.enqueue(k, rec.ID))
	}
	var version int64
	var old []byte
	found, err := s.one(kd.get, []any{s.Tenant, rec.ID}, &version, &old)
	if err != nil {
		return fmt.Errorf("replace %s: %w", k, err)
	}
	if !found {
		return problem.New(problem.NotFound, "", "there is no such document").About(string(k))
	}
	return conflict("version")
}

// Delete implements tenant.Tx.
func (s *Session) Delete(k tenant.Kind, id string) (bool, error) {
	kd, err := s.SQL.kind(k)
	if err != nil {
		return false, err
	}
	if !storable(id) {
		return false, nil
	}
	res, err := s.Q.ExecContext(s.Ctx, kd.delete, s.Tenant, id)
	if err != nil {
		return false, fmt.Errorf("delete %s: %w", k, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	return true, s.enqueue(k, id)
}

// DeleteWhere implements tenant.Tx.
func (s *Session) DeleteWhere(k tenant.Kind, where []tenant.Cond) (int, error) {
	kd, err := s.SQL.kind(k)
	if err != nil {
		return 0, err
	}
	if len(where) == 0 {
		return 0, errors.New("delete without a condition is refused")
	}
	b := &builder{d: s.SQL.d, kd: kd}
	cond, err := b.where(s.Tenant, tenant.Query{Where: where})
	if err != nil {
		return 0, err
	}
	if b.notText {
		return 0, errNotText()
	}
	if s.SQL.indexed.Load() && slices.Contains(tenant.Searchable(), k) {
		return s.deleteEach(k, cond, b.args)
	}
	res, err := s.Q.ExecContext(s.Ctx, "DELETE FROM "+quote(string(k))+" WHERE "+cond, b.args...)
	if err != nil {
		return 0, fmt.Errorf("delete %s: %w", k, err)
	}
	n, err := res.RowsAffected()
	return int(n), err
}

// deleteEach deletes what the search index has to forget too.
func (s *Session) deleteEach(k tenant.Kind, cond string, args []any) (n int, err error) {
	rows, err := s.Q.QueryContext(s.Ctx, "SELECT id FROM "+quote(string(k))+" WHERE "+cond, args...)
	if err != nil {
		return 0, fmt.Errorf("delete %s: %w", k, err)
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return 0, fmt.Errorf("delete %s: %w", k, err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("delete %s: %w", k, err)
	}
	rows.Close()
	for _, id := range ids {
		there, err := s.Delete(k, id)
		if err != nil {
			return n, err
		}
		if there {
			n++
		}
	}
	return n, nil
}

// Find implements tenant.Tx.
func (s *Session) Find(k tenant.Kind, q tenant.Query) (tenant.Page, error) {
	kd, err := s.SQL.kind(k)
	if err != nil {
		return tenant.Page{}, err
	}
	if q.Limit < 0 || q.Offset < 0 {
		return tenant.Page{}, problem.New(problem.Invalid, "invalid_paging", "limit and offset are 0 or more")
	}
	if q.Limit == 0 || q.Limit > MaxLimit {
		q.Limit = MaxLimit
	}
	b := &builder{d: s.SQL.d, kd: kd}
	cond, err := b.where(s.Tenant, q)
	if err != nil {
		return tenant.Page{}, err
	}
	if b.notText || !storable(q.After) {
		return tenant.Page{}, errNotText()
	}
	var page tenant.Page
	by := s.Q
	if q.Search != nil && s.Adhoc != nil {
		by = s.Adhoc
	}
	table := quote(string(k))
	if q.Total {
		if _, err := s.oneBy(by, "SELECT COUNT(*) FROM "+table+" WHERE "+cond, b.args, &page.Total); err != nil {
			return page, fmt.Errorf("count %s: %w", k, err)
		}
	}
	if q.After != "" {
		if len(q.Sort) > 0 {
			return page, problem.New(problem.Invalid, "invalid_paging", "a page after an id has no other order")
		}
		cond += " AND id > " + b.bind(q.After)
	}
	var order []string
	for _, o := range q.Sort {
		if _, ok := kd.columns[o.Column]; !ok && o.Column != "id" {
			return page, problem.New(problem.Invalid, "invalid_sort", "%s cannot be sorted by; allowed are: %s", o.Column, kd.columnNames())
		}
		dir := ""
		if o.Desc {
			dir = " DESC"
		}
		// Absent values last, on both engines.
		order = append(order, "("+quote(o.Column)+" IS NULL)", quote(o.Column)+dir)
	}
	tail := "id"
	if len(q.Sort) > 0 && q.Sort[len(q.Sort)-1].Desc {
		tail = "id DESC"
	}
	order = append(order, tail)
	query := fmt.Sprintf("SELECT id, version, %s FROM %s WHERE %s ORDER BY %s LIMIT %s OFFSET %s",
		s.SQL.d.Doc(), table, cond, strings.Join(order, ", "), b.bind(q.Limit), b.bind(q.Offset))
	rows, err := by.QueryContext(s.Ctx, query, b.args...)
	if err != nil {
		return page, fmt.Errorf("find %s: %w", k, err)
	}
	defer rows.Close()
	for rows.Next() {
		var rec tenant.Record
		if err := rows.Scan(&rec.ID, &rec.Version, &rec.Doc); err != nil {
			return page, fmt.Errorf("find %s: %w", k, err)
		}
		if rec.Doc, err = s.open(kd, rec.ID, rec.Doc); err != nil {
			return page, err
		}
		page.Records = append(page.Records, rec)
	}
	if err := rows.Err(); err != nil {
		return page, fmt.Errorf("find %s: %w", k, err)
	}
	return page, nil
}

func (kd *kind) columnNames() string {
	names := []string{"id"}
	for _, c := range kd.Columns {
		names = append(names, c.Name)
	}
	return strings.Join(names, ", ")
}

type builder struct {
	d    Dialect
	kd   *kind
	args []any

	notText bool // a value was bound that is no text for every engine
}

func (b *builder) bind(v any) string {
	if s, ok := v.(string); ok && !storable(s) {
		b.notText = true
	}
	b.args = append(b.args, v)
	return b.d.Placeholder(len(b.args))
}

var ops = map[tenant.Op]string{tenant.Eq: "=", tenant.Lt: "<", tenant.Le: "<=", tenant.Gt: ">", tenant.Ge: ">="}

func (b *builder) where(tenantID string, q tenant.Query) (string, error) {
	parts := []string{"tenant = " + b.bind(tenantID)}
	for _, c := range q.Where {
		// Before anything folds the text, which would hide it.
		switch v := c.Value.(type) {
		case string:
			b.notText = b.notText || !storable(v)
		case []string:
			b.notText = b.notText || !storable(strings.Join(v, ""))
		}
		col, ok := b.kd.columns[c.Column]
		if c.Column == "id" {
			col, ok = tenant.Column{Name: "id", Type: tenant.Text}, true
		}
		if !ok {
			return "", problem.New(problem.Invalid, "invalid_filter", "%s cannot be filtered by; allowed are: %s", c.Column, b.kd.columnNames())
		}
		if c.Op == tenant.In {
			values, ok := c.Value.([]string)
			if !ok {
				return "", fmt.Errorf("condition on %s: In takes a []string", c.Column)
			}
			if len(values) == 0 {
				parts = append(parts, "1 = 0")
				continue
			}
			marks := make([]string, len(values))
			for i, v := range values {
				if col.Type == tenant.Folded {
					v = strings.ToLower(v)
				}
				marks[i] = b.bind(v)
			}
			parts = append(parts, quote(col.Name)+" IN ("+strings.Join(marks, ", ")+")")
			continue
		}
		v, err := bindValue(col, c.Value)
		if err != nil {
			return "", err
		}
		parts = append(parts, quote(col.Name)+" "+ops[c.Op]+" "+b.bind(v))
	}
	if q.Search != nil && q.Search.Root != nil {
		cond, err := search.Resolve(q.Search, b.kd.schema)
		if err != nil {
			return "", err
		}
		parts = append(parts, b.search(cond))
	}
	return strings.Join(parts, " AND "), nil
}

func bindValue(col tenant.Column, v any) (any, error) {
	switch x := v.(type) {
	case string:
		switch col.Type {
		case tenant.Folded:
			return strings.ToLower(x), nil
		case tenant.Text:
			return x, nil
		}
	case int:
		return int64(x), nil
	case int64:
		return x, nil
	case bool:
		if x {
			return int64(1), nil
		}
		return int64(0), nil
	case time.Time:
		return x.UnixMilli(), nil
	}
	return nil, fmt.Errorf("condition on %s: %T does not fit the column", col.Name, v)
}
