package mgmt

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// paging is what a list was asked for, in one of Auth0's two forms: numbered
// pages (page, per_page, include_totals) or checkpoints (from, take).
type paging struct {
	page, perPage int
	totals        bool
	checkpoint    bool
	from          string
	take          int
	asked         bool // any parameter of paging was there
}

func readPaging(q url.Values, defaultSize, maxSize int) (paging, error) {
	p := paging{perPage: defaultSize, take: defaultSize}
	bad := func(name, allowed string) (paging, error) {
		return p, problem.New(problem.Invalid, "invalid_paging", "%s wants %s, got %q", name, allowed, clip(q.Get(name), 32))
	}
	number := func(name string, low, high int, into *int) bool {
		s := q.Get(name)
		if s == "" {
			return true
		}
		n, err := strconv.Atoi(s)
		if err != nil || n < low || n > high {
			return false
		}
		*into = n
		return true
	}
	if !number("page", 0, 1_000_000, &p.page) {
		return bad("page", "a number from 0")
	}
	if !number("per_page", 0, maxSize, &p.perPage) {
		return bad("per_page", "a number from 0 to "+strconv.Itoa(maxSize))
	}
	if !number("take", 1, maxSize, &p.take) {
		return bad("take", "a number from 1 to "+strconv.Itoa(maxSize))
	}
	switch q.Get("include_totals") {
	case "true":
		p.totals = true
	case "", "false":
	default:
		return bad("include_totals", "true or false")
	}
	p.from = q.Get("from")
	p.checkpoint = q.Has("from") || q.Has("take")
	p.asked = q.Has("page") || q.Has("per_page")
	if len(p.from) > 512 {
		return bad("from", "an id that a list gave out")
	}
	return p, nil
}

// query turns the paging into a query of the store. One more than asked for is
// read for checkpoints, to know whether there is a next page.
func (p paging) query(q tenant.Query) tenant.Query {
	if p.checkpoint {
		q.Limit, q.After, q.Sort, q.Total = p.take+1, p.from, nil, false
		return q
	}
	q.Limit, q.Offset, q.Total = max(p.perPage, 1), p.page*p.perPage, p.totals
	return q
}

// envelope is a list as it goes out.
func (p paging) envelope(key string, items []any, ids []string, total int) any {
	if p.checkpoint {
		out := doc{}
		if len(items) > p.take {
			items = items[:p.take]
			out["next"] = ids[p.take-1]
		}
		out[key] = items
		return out
	}
	if p.perPage == 0 {
		items = items[:0]
	}
	if p.totals {
		return doc{"start": p.page * p.perPage, "limit": p.perPage, "length": len(items), "total": total, "next": "", key: items}
	}
	return items
}

// fieldsOf reads fields and include_fields, and returns what cuts a document. The
// properties in always stay when others are chosen.
func fieldsOf(q url.Values, always ...string) (func(doc) doc, error) {
	raw := q.Get("fields")
	include := true
	switch q.Get("include_fields") {
	case "", "true":
	case "false":
		include = false
	default:
		return nil, problem.New(problem.Invalid, "invalid_query_string", "include_fields wants true or false")
	}
	if raw == "" {
		return func(d doc) doc { return d }, nil
	}
	if len(raw) > 2048 {
		return nil, problem.New(problem.Invalid, "invalid_query_string", "fields is longer than the 2048 characters that are allowed")
	}
	names := strings.Split(raw, ",")
	for _, n := range names {
		if n == "" || strings.Trim(n, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") != "" {
			return nil, problem.New(problem.Invalid, "invalid_query_string", "fields wants names with commas between them")
		}
	}
	return func(d doc) doc {
		out := doc{}
		for k, v := range d {
			if slices.Contains(names, k) == include || include && slices.Contains(always, k) {
				out[k] = v
			}
		}
		if include {
			for _, n := range names { // user_metadata.color
				if head, rest, ok := strings.Cut(n, "."); ok {
					if v := dig(d[head], rest); v != nil {
						put(out, head, rest, v)
					}
				}
			}
		}
		return out
	}, nil
}

func dig(v any, path string) any {
	d, ok := v.(doc)
	if !ok {
		return nil
	}
	head, rest, more := strings.Cut(path, ".")
	if !more {
		return d[head]
	}
	return dig(d[head], rest)
}

func put(d doc, head, rest string, v any) {
	inner, ok := d[head].(doc)
	if !ok {
		inner = doc{}
		d[head] = inner
	}
	if next, tail, more := strings.Cut(rest, "."); more {
		put(inner, next, tail, v)
		return
	}
	inner[rest] = v
}
