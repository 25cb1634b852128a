package mgmt

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/authn"
	"github.com/portcullis-id/portcullis/password"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
	"github.com/portcullis-id/portcullis/web"
)

// Bounds of jobs.
const (
	maxImport   = 512_000 // bytes of a file of users, as Auth0 has it
	maxErrors   = 1000    // users whose errors are kept
	jobLife     = 7 * 24 * time.Hour
	jobLease    = 2 * time.Minute // a job whose node died is taken up after that
	saveEvery   = 25              // users between two notes of an import's progress
	exportBatch = 500
)

// job is a piece of work in the background.
type job struct {
	ID           string          `json:"id"`
	Type         string          `json:"type"`   // verification_email, users_import, users_export
	Status       string          `json:"status"` // pending, processing, completed, failed
	CreatedAt    time.Time       `json:"created_at"`
	ExpiresAt    time.Time       `json:"expires_at"`
	LeaseUntil   time.Time       `json:"lease_until,omitzero"`
	ConnectionID string          `json:"connection_id,omitempty"`
	Connection   string          `json:"connection,omitempty"`
	ExternalID   string          `json:"external_id,omitempty"`
	UserID       string          `json:"user_id,omitempty"`
	ClientID     string          `json:"client_id,omitempty"`
	Upsert       bool            `json:"upsert,omitempty"`
	Format       string          `json:"format,omitempty"` // json, csv
	Fields       []exportField   `json:"fields,omitempty"`
	Limit        int             `json:"limit,omitempty"`
	Token        string          `json:"token,omitempty"` // opens the result of an export
	Input        string          `json:"input,omitempty"` // users of an import; sealed at rest
	Done         int             `json:"done,omitempty"`
	Summary      *importSummary  `json:"summary,omitempty"`
	Failures     []importFailure `json:"failures,omitempty"`
	Details      string          `json:"status_details,omitempty"`
}

type exportField struct {
	Name     string `json:"name"`
	ExportAs string `json:"export_as,omitempty"`
}

type importSummary struct {
	Failed   int `json:"failed"`
	Updated  int `json:"updated"`
	Inserted int `json:"inserted"`
	Total    int `json:"total"`
}

type importFailure struct {
	User   doc   `json:"user"`
	Errors []doc `json:"errors"`
}

func (a *API) registerJobs(mux *http.ServeMux) {
	a.handle(mux, "POST jobs/verification-email", []string{"update:users"}, a.verificationJob)
	a.handle(mux, "POST jobs/users-exports", []string{"read:users"}, a.exportJob)
	a.handle(mux, "POST jobs/users-imports", []string{"create:users"}, a.importJob)
	a.handle(mux, "GET jobs/{id}", []string{"create:users", "read:users"}, a.getJob)
	a.handle(mux, "GET jobs/{id}/errors", []string{"create:users", "read:users"}, a.jobErrors)
	// The result of an export is fetched by the link alone, as at Auth0.
	mux.Handle("GET "+root+"jobs/{id}/results", web.Handle(a.exportResult, render))
}

func (a *API) jobView(c *call, j *job) doc {
	d := doc{"id": j.ID, "type": j.Type, "status": j.Status, "created_at": timestamp(j.CreatedAt)}
	set := func(name, v string) {
		if v != "" {
			d[name] = v
		}
	}
	set("connection_id", j.ConnectionID)
	set("connection", j.Connection)
	set("external_id", j.ExternalID)
	set("format", j.Format)
	set("status_details", j.Details)
	if j.Summary != nil {
		d["summary"] = j.Summary
		if j.Summary.Total > 0 {
			d["percentage_done"] = 100 * j.Done / j.Summary.Total
		}
	}
	if j.Type == "users_import" {
		d["upsert"] = j.Upsert
	}
	if j.Type == "users_export" && j.Status == "completed" {
		d["location"] = a.Directory.URL(c.tenant) + "api/v2/jobs/" + j.ID + "/results?token=" + j.Token
		d["percentage_done"] = 100
	}
	return d
}

func (a *API) start(c *call, j *job) (int, any, error) {
	j.ID, j.Status = tenant.NewID("job"), "pending"
	err := a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) error {
		j.CreatedAt, j.ExpiresAt = tx.Now(), tx.Now().Add(jobLife)
		return tenant.Add(tx, tenant.KindJob, j.ID, j)
	})
	if err != nil {
		return 0, nil, err
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return http.StatusCreated, a.jobView(c, j), nil
}

func (a *API) job(c *call) (*job, error) {
	j, err := tenant.Get[job](c.ctx(), a.docs, c.tenant, tenant.KindJob, c.PathValue("id"))
	if problem.Is(err, problem.NotFound) {
		return nil, notFound("inexistent_job", "The job does not exist")
	}
	return j, err
}

func (a *API) getJob(c *call) (int, any, error) {
	j, err := a.job(c)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, a.jobView(c, j), nil
}

func (a *API) jobErrors(c *call) (int, any, error) {
	j, err := a.job(c)
	if err != nil {
		return 0, nil, err
	}
	if len(j.Failures) == 0 {
		return http.StatusNoContent, nil, nil
	}
	return http.StatusOK, j.Failures, nil
}

func (a *API) verificationJob(c *call) (int, any, error) {
	d, err := c.object()
	if err != nil {
		return 0, nil, err
	}
	if err := declare("user_id client_id identity:object organization_id").check(d); err != nil {
		return 0, nil, err
	}
	if err := required(d, "user_id"); err != nil {
		return 0, nil, err
	}
	if _, err := a.docs.Get(c.ctx(), c.tenant, tenant.KindUser, text(d, "user_id")); problem.Is(err, problem.NotFound) {
		return 0, nil, errNoUser
	} else if err != nil {
		return 0, nil, err
	}
	return a.start(c, &job{Type: "verification_email", UserID: text(d, "user_id"), ClientID: text(d, "client_id")})
}

func (a *API) exportJob(c *call) (int, any, error) {
	d, err := c.object()
	if err != nil {
		return 0, nil, err
	}
	if err := declare("connection_id format limit:integer fields:array").check(d); err != nil {
		return 0, nil, err
	}
	if err := oneOf(d, "format", "json", "csv"); err != nil {
		return 0, nil, err
	}
	j := &job{Type: "users_export", Format: text(d, "format"), Token: tenant.RandomString(43)}
	if j.Format == "" {
		j.Format = "json"
	}
	if n, ok := d["limit"].(json.Number); ok {
		limit, err := n.Int64()
		if err != nil || limit < 1 {
			return 0, nil, invalidBody("'limit wants a number from 1' on property limit.")
		}
		j.Limit = int(min(limit, 1<<31-1))
	}
	list, _ := d["fields"].([]any)
	if len(list) > 100 {
		return 0, nil, invalidBody("'fields has more than the 100 elements that are allowed'.")
	}
	for i, v := range list {
		f, ok := v.(doc)
		if !ok || text(f, "name") == "" {
			return 0, nil, invalidBody("'A field wants a name' on property fields[%d].", i)
		}
		j.Fields = append(j.Fields, exportField{text(f, "name"), text(f, "export_as")})
	}
	if id := text(d, "connection_id"); id != "" {
		conn, err := a.Directory.Connection(c.ctx(), c.tenant, id)
		if problem.Is(err, problem.NotFound) {
			return 0, nil, errNoConnection
		}
		if err != nil {
			return 0, nil, err
		}
		j.ConnectionID, j.Connection = conn.ID, conn.Name
	}
	return a.start(c, j)
}

func (a *API) importJob(c *call) (int, any, error) {
	if err := c.ParseMultipartForm(maxImport + 64<<10); err != nil {
		var tooBig *http.MaxBytesError
		if errors.As(err, &tooBig) {
			return 0, nil, problem.Wrap(problem.TooLarge, "payload_too_large", err, "The file of users is larger than the %d bytes that are allowed", maxImport)
		}
		return 0, nil, problem.Wrap(problem.Invalid, "invalid_body", err, "The body wants multipart/form-data with users and connection_id")
	}
	file, head, err := c.FormFile("users")
	if err != nil {
		return 0, nil, problem.Wrap(problem.Invalid, "invalid_body", err, "Missing required file: users")
	}
	defer file.Close()
	if head.Size > maxImport {
		return 0, nil, problem.New(problem.TooLarge, "payload_too_large", "The file of users has %d bytes; allowed are %d", head.Size, maxImport)
	}
	raw, err := io.ReadAll(io.LimitReader(file, maxImport+1))
	if err != nil {
		return 0, nil, fmt.Errorf("read the file of users: %w", err)
	}
	users, err := readUsers(raw)
	if err != nil {
		return 0, nil, err
	}
	conn, err := a.database(c, c.FormValue("connection_id"))
	if err != nil {
		return 0, nil, err
	}
	canonical, err := json.Marshal(users)
	if err != nil {
		return 0, nil, err
	}
	return a.start(c, &job{Type: "users_import", ConnectionID: conn.ID, Connection: conn.Name, ExternalID: clip(c.FormValue("external_id"), 255),
		Upsert: c.FormValue("upsert") == "true", Input: string(canonical), Summary: &importSummary{Total: len(users)}})
}

// readUsers reads a file of users, with or without a byte order mark. Each of them
// is judged by itself, when its turn comes.
func readUsers(raw []byte) ([]any, error) {
	v, err := decode(bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf")))
	users, ok := v.([]any)
	if err != nil || !ok {
		return nil, problem.New(problem.Invalid, "invalid_body", "The file of users wants a JSON array of objects")
	}
	return users, nil
}

// Run works on jobs until ctx ends. tenants lists where to look.
func (a *API) Run(ctx context.Context, tenants func(ctx context.Context) ([]string, error)) error {
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		names, err := tenants(ctx)
		if err != nil && ctx.Err() == nil {
			a.Logger.ErrorContext(ctx, "jobs wait for the store", "error", err)
		}
		for _, t := range names {
			for ctx.Err() == nil {
				did, err := a.work(ctx, t)
				if err != nil && ctx.Err() == nil {
					a.Logger.ErrorContext(ctx, "a job was broken off and will be taken up again", "tenant", t, "error", err)
				}
				if !did || err != nil {
					break
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		case <-tick.C:
		}
	}
}

// work takes one job of a tenant and does it.
func (a *API) work(ctx context.Context, t string) (bool, error) {
	var j *job
	err := a.docs.Write(ctx, t, func(tx tenant.Tx) error {
		j = nil
		open, _, err := tenant.Select[job](tx, tenant.KindJob, tenant.Query{Limit: 20, Where: []tenant.Cond{
			{Column: "status", Op: tenant.In, Value: []string{"pending", "processing"}}}})
		if err != nil {
			return err
		}
		for _, o := range open {
			if o.Status == "processing" && tx.Now().Before(o.LeaseUntil) {
				continue
			}
			j, err = tenant.Change(tx, tenant.KindJob, o.ID, func(j *job) error {
				j.Status, j.LeaseUntil = "processing", tx.Now().Add(jobLease)
				return nil
			})
			return err
		}
		return nil
	})
	if err != nil || j == nil {
		return false, err
	}
	switch j.Type {
	case "users_import":
		err = a.runImport(ctx, t, j)
	case "verification_email":
		err = a.runVerification(ctx, t, j)
	}
	if ctx.Err() != nil {
		return true, ctx.Err() // the lease runs out, and it goes on from where it was
	}
	if err != nil {
		j.Status, j.Details = "failed", problem.From(err).Message
	} else {
		j.Status = "completed"
	}
	j.Input = ""
	return true, a.save(ctx, t, j)
}

// save notes how far a job is, and keeps its lease.
func (a *API) save(ctx context.Context, t string, j *job) error {
	return a.docs.Write(ctx, t, func(tx tenant.Tx) error {
		_, err := tenant.Change(tx, tenant.KindJob, j.ID, func(stored *job) error {
			j.LeaseUntil = tx.Now().Add(jobLease)
			*stored = *j
			return nil
		})
		if problem.Is(err, problem.NotFound) {
			return nil // the tenant was deleted
		}
		return err
	})
}

func (a *API) runVerification(ctx context.Context, t string, j *job) error {
	var client *tenant.Client
	if j.ClientID != "" {
		var err error
		if client, err = a.Directory.Client(ctx, t, j.ClientID); err != nil && !problem.Is(err, problem.NotFound) {
			return err
		}
	}
	return a.Users.SendVerification(ctx, t, j.UserID, client)
}

func (a *API) runImport(ctx context.Context, t string, j *job) error {
	v, err := decode([]byte(j.Input))
	if err != nil {
		return err
	}
	users, _ := v.([]any)
	conn, err := a.Directory.Connection(ctx, t, j.ConnectionID)
	if err != nil {
		return err
	}
	for j.Done < len(users) {
		d, ok := users[j.Done].(doc)
		updated := false
		err := error(invalidBody("'Expected type object but found type %s'.", kindOf(users[j.Done])))
		if ok {
			updated, err = a.importUser(ctx, t, conn, d, j.Upsert)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		e := problem.From(err)
		switch {
		case err == nil && updated:
			j.Summary.Updated++
		case err == nil:
			j.Summary.Inserted++
		case e.Kind == problem.Internal || e.Kind == problem.Unavailable:
			return err
		default:
			j.Summary.Failed++
			if len(j.Failures) < maxErrors {
				for _, secret := range []string{"password_hash", "custom_password_hash", "mfa_factors"} {
					if d[secret] != nil {
						d[secret] = "*****"
					}
				}
				j.Failures = append(j.Failures, importFailure{User: d, Errors: []doc{{"code": e.Code, "message": e.Message}}})
			}
		}
		j.Done++
		if j.Done%saveEvery == 0 {
			if err := a.save(ctx, t, j); err != nil {
				return err
			}
		}
	}
	a.Log.Append(t, tenant.LogEvent{Type: tenant.LogUsersImport, Connection: j.Connection, ConnectionID: j.ConnectionID,
		Description: fmt.Sprintf("%d inserted, %d updated, %d failed", j.Summary.Inserted, j.Summary.Updated, j.Summary.Failed)})
	return nil
}

var importFields = declare(`email:?string email_verified:boolean user_id:?string username:?string given_name:?string family_name:?string name:?string nickname:?string
picture:?string blocked:boolean password_hash:?string custom_password_hash:?object app_metadata:?object user_metadata:?object phone_number:?string
phone_verified:boolean mfa_factors:?array created_at:any updated_at:any last_login:any logins_count:any identities:any last_ip:any`)

// importedHash reads the password of an imported user.
func importedHash(d doc) (string, error) {
	if s := text(d, "password_hash"); s != "" {
		raw, err := json.Marshal(doc{"algorithm": "bcrypt", "hash": doc{"value": s}})
		if err != nil {
			return "", err
		}
		return password.Import(raw)
	}
	if d["custom_password_hash"] != nil {
		raw, err := json.Marshal(d["custom_password_hash"])
		if err != nil {
			return "", err
		}
		return password.Import(raw)
	}
	return "", nil
}

// readUser judges one user of a file.
func readUser(d doc, conn *tenant.Connection) (u *tenant.User, hash string, err error) {
	if err := bounded(d, 0); err != nil {
		return nil, "", err
	}
	if err := importFields.check(d); err != nil {
		return nil, "", err
	}
	u = &tenant.User{ID: strings.TrimPrefix(text(d, "user_id"), tenant.StrategyDatabase+"|")}
	if err := applyUser(u, d, conn); err != nil {
		return nil, "", err
	}
	if u.Email == "" {
		return nil, "", invalidBody("'Missing required property: email'.")
	}
	hash, err = importedHash(d)
	return u, hash, err
}

func (a *API) importUser(ctx context.Context, t string, conn *tenant.Connection, d doc, upsert bool) (updated bool, err error) {
	u, hash, err := readUser(d, conn)
	if err != nil {
		return false, err
	}
	_, err = a.Users.CreateUser(ctx, t, conn, u, "", hash, false)
	if problem.From(err).Code != authn.CodeExists || !upsert {
		return false, err
	}
	return true, a.docs.Write(ctx, t, func(tx tenant.Tx) error {
		old, err := tenant.UserByIdentifier(tx, conn, tenant.ByEmail, u.Email)
		if problem.Is(err, problem.NotFound) {
			return problem.New(problem.Conflict, authn.CodeExists, "Another user has the username or the id")
		}
		if err != nil {
			return err
		}
		if _, err := tenant.UpdateUser(tx, old.ID, func(u *tenant.User) error { return applyUser(u, d, conn) }); err != nil {
			return err
		}
		if hash == "" {
			return nil
		}
		return tenant.SetPasswordHash(tx, conn, old, hash, false)
	})
}

// exportFields are those of an export that names none.
var exportFields = strings.Fields("user_id email email_verified username name nickname given_name family_name phone_number phone_verified picture created_at updated_at")

// exportResult streams the users of an export, as they are now, compressed:
// nothing is kept on a node in between.
func (a *API) exportResult(w http.ResponseWriter, r *http.Request) error {
	t := tenant.FromContext(r.Context()).Name
	j, err := tenant.Get[job](r.Context(), a.docs, t, tenant.KindJob, r.PathValue("id"))
	token := r.URL.Query().Get("token")
	if problem.Is(err, problem.NotFound) || err == nil && (j.Type != "users_export" || j.Status != "completed" || !sameSecret(token, j.Token)) {
		return notFound("inexistent_job", "The job does not exist, or its result is not there")
	}
	if err != nil {
		return err
	}
	fields := j.Fields
	if len(fields) == 0 {
		for _, name := range exportFields {
			fields = append(fields, exportField{Name: name})
		}
	}
	h := w.Header()
	h.Set("Content-Type", "application/gzip")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Disposition", `attachment; filename="`+j.ID+"."+j.Format+`.gz"`)
	// Long work: the connection lives as long as bytes flow.
	deadline := http.NewResponseController(w)
	zip := gzip.NewWriter(w)
	write := jsonLines(zip, fields)
	if j.Format == "csv" {
		write = csvLines(zip, fields)
	}
	after, left := "", j.Limit
	if left == 0 {
		left = -1
	}
	query := tenant.Query{Limit: exportBatch}
	if j.Connection != "" {
		query.Where = []tenant.Cond{{Column: "connection", Value: j.Connection}}
	}
	for left != 0 {
		_ = deadline.SetWriteDeadline(time.Now().Add(time.Minute)) // a writer without deadlines has none to move
		query.After = after
		page, err := a.docs.Find(r.Context(), t, tenant.KindUser, query)
		if err != nil {
			return abort(err)
		}
		for _, rec := range page.Records {
			if left == 0 {
				break
			}
			d, err := asDoc(rec.Doc)
			if err != nil {
				return abort(err)
			}
			if err := write(d); err != nil {
				return abort(err)
			}
			after = rec.ID
			left--
		}
		if len(page.Records) < exportBatch {
			break
		}
	}
	if err := write(nil); err != nil {
		return abort(err)
	}
	if err := zip.Close(); err != nil {
		return abort(err)
	}
	return nil
}

// abort ends an answer that has begun, so that the client sees it is not whole.
func abort(err error) error { panic(fmt.Errorf("%w: %w", http.ErrAbortHandler, err)) }

// jsonLines writes one object a line. A nil document ends the file.
func jsonLines(w io.Writer, fields []exportField) func(doc) error {
	enc := json.NewEncoder(w)
	return func(d doc) error {
		if d == nil {
			return nil
		}
		out := doc{}
		for _, f := range fields {
			if v := lookup(d, f.Name); v != nil {
				out[f.as()] = v
			}
		}
		return enc.Encode(out)
	}
}

func csvLines(w io.Writer, fields []exportField) func(doc) error {
	out := csv.NewWriter(w)
	head := false
	return func(d doc) error {
		if !head {
			row := make([]string, len(fields))
			for i, f := range fields {
				row[i] = f.as()
			}
			head = true
			if err := out.Write(row); err != nil {
				return err
			}
		}
		if d == nil {
			out.Flush()
			return out.Error()
		}
		row := make([]string, len(fields))
		for i, f := range fields {
			row[i] = csvCell(lookup(d, f.Name))
		}
		return out.Write(row)
	}
}

// csvCell keeps spreadsheets from running what a user wrote.
func csvCell(v any) string {
	s := ""
	switch v := v.(type) {
	case nil:
	case string:
		s = v
	case bool:
		s = strconv.FormatBool(v)
	case json.Number:
		s = v.String()
	default:
		if raw, err := json.Marshal(v); err == nil {
			s = string(raw)
		}
	}
	if s != "" && slices.Contains([]byte("=+-@\t\r"), s[0]) {
		s = "'" + s
	}
	return s
}

func (f exportField) as() string {
	if f.ExportAs != "" {
		return f.ExportAs
	}
	return f.Name
}

// lookup finds a.b and a[0].b.
func lookup(d doc, name string) any {
	var v any = d
	for _, part := range strings.Split(strings.NewReplacer("[", ".", "]", "").Replace(name), ".") {
		switch x := v.(type) {
		case doc:
			v = x[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}
