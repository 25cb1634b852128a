package mgmt

import (
	"net/http"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/search"
	"github.com/portcullis-id/portcullis/tenant"
)

func (a *API) registerLogs(mux *http.ServeMux) {
	scopes := []string{"read:logs", "read:logs_users"}
	a.handle(mux, "GET logs", scopes, func(c *call) (int, any, error) { return a.logs(c, nil) })
	a.handle(mux, "GET logs/{id}", scopes, a.oneLog)
}

func (a *API) logs(c *call, where []tenant.Cond) (int, any, error) {
	q := c.URL.Query()
	p, err := readPaging(q, 50, 100)
	if err != nil {
		return 0, nil, err
	}
	if !p.checkpoint && (p.page+1)*p.perPage > maxSearch && p.perPage > 0 {
		return 0, nil, problem.New(problem.Invalid, "invalid_paging", "You can only page through the first %d records. Use from and take for more", maxSearch)
	}
	cut, err := fieldsOf(q)
	if err != nil {
		return 0, nil, err
	}
	query := tenant.Query{Where: where}
	if raw := q.Get("q"); raw != "" {
		if query.Search, err = search.Parse(raw); err != nil {
			return 0, nil, err
		}
	}
	if query.Sort, err = readSort(q.Get("sort"), map[string]string{"log_id": "id", "_id": "id"}); err != nil {
		return 0, nil, err
	}
	if len(query.Sort) == 0 && !p.checkpoint {
		query.Sort = []tenant.Order{{Column: "date", Desc: true}}
	}
	page, err := a.docs.Find(c.ctx(), c.tenant, tenant.KindLog, p.query(query))
	if err != nil {
		return 0, nil, err
	}
	items, ids := []any{}, []string{}
	for _, rec := range page.Records {
		d, err := logView(rec)
		if err != nil {
			return 0, nil, err
		}
		items, ids = append(items, cut(d)), append(ids, rec.ID)
	}
	if p.checkpoint { // the list itself, as Auth0 answers here
		return http.StatusOK, items[:min(len(items), p.take)], nil
	}
	return http.StatusOK, p.envelope("logs", items, ids, page.Total), nil
}

func logView(rec tenant.Record) (doc, error) {
	d, err := asDoc(rec.Doc)
	if err == nil {
		d["_id"] = rec.ID
	}
	return d, err
}

func (a *API) oneLog(c *call) (int, any, error) {
	rec, err := a.docs.Get(c.ctx(), c.tenant, tenant.KindLog, c.PathValue("id"))
	if problem.Is(err, problem.NotFound) {
		return 0, nil, notFound("log_not_found", "Log not found")
	}
	if err != nil {
		return 0, nil, err
	}
	d, err := logView(rec)
	return http.StatusOK, d, err
}

func (a *API) userLogs(c *call) (int, any, error) {
	if _, err := a.user(c); err != nil {
		return 0, nil, err
	}
	return a.logs(c, []tenant.Cond{{Column: "user_id", Value: c.PathValue("id")}})
}
