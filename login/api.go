package login

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/portcullis-id/portcullis/authn"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
	"github.com/portcullis-id/portcullis/web"
)

// registerAPI adds the endpoints that SDKs call in the place of the pages.
func (p *Pages) registerAPI(mux *http.ServeMux) {
	for path, h := range map[string]web.HandlerFunc{"/dbconnections/signup": p.apiSignup, "/dbconnections/change_password": p.apiChangePassword} {
		mux.Handle("POST "+path, web.Handle(func(w http.ResponseWriter, r *http.Request) error {
			if r.Header.Get("Origin") != "" {
				w.Header().Set("Access-Control-Allow-Origin", "*") // no cookies are looked at
			}
			return h(w, r)
		}, renderAPI))
		mux.HandleFunc("OPTIONS "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Access-Control-Allow-Origin", "*")
			w.Header().Set("Access-Control-Allow-Methods", "POST, OPTIONS")
			w.Header().Set("Access-Control-Allow-Headers", "Content-Type, Auth0-Client")
			w.WriteHeader(http.StatusNoContent)
		})
	}
}

// renderAPI writes the error form of Auth0's /dbconnections.
func renderAPI(w http.ResponseWriter, r *http.Request, e *problem.Error) {
	body := map[string]any{"name": "BadRequestError", "code": e.Code, "description": e.Message, "statusCode": e.HTTPStatus()}
	switch e.Code {
	case authn.CodePassword:
		body["name"], body["policy"], body["message"] = "PasswordStrengthError", e.Message, "Password is too weak"
	case authn.CodeSignup:
		body["message"] = e.Message
	}
	if e.Kind == problem.Internal {
		body["name"], body["description"] = "InternalServerError", e.Message+". Request id: "+web.RequestID(r.Context())
	}
	_ = web.JSON(w, e.HTTPStatus(), body)
}

type apiRequest struct {
	ClientID     string          `json:"client_id"`
	Connection   string          `json:"connection"`
	Email        string          `json:"email"`
	Username     string          `json:"username"`
	Password     string          `json:"password"`
	Name         string          `json:"name"`
	GivenName    string          `json:"given_name"`
	FamilyName   string          `json:"family_name"`
	Nickname     string          `json:"nickname"`
	Picture      string          `json:"picture"`
	UserMetadata json.RawMessage `json:"user_metadata"`
}

// read decodes a request and finds its client and database connection. Fields
// that nobody may set for themselves (app_metadata, email_verified, roles) are
// not in the type, and so never reach a user.
func (p *Pages) read(r *http.Request) (req apiRequest, client *tenant.Client, c *tenant.Connection, err error) {
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			return req, nil, nil, problem.Wrap(problem.Invalid, "invalid_body", err, "The body is no JSON object with texts")
		}
	} else {
		if err := r.ParseForm(); err != nil {
			return req, nil, nil, badForm(err)
		}
		f := r.PostForm
		req = apiRequest{ClientID: f.Get("client_id"), Connection: f.Get("connection"), Email: f.Get("email"), Username: f.Get("username"), Password: f.Get("password")}
	}
	t := tenantName(r.Context())
	if req.ClientID == "" {
		return req, nil, nil, problem.New(problem.Invalid, "invalid_body", "missing client_id parameter")
	}
	if client, err = p.dir.Client(r.Context(), t, req.ClientID); problem.Is(err, problem.NotFound) {
		return req, nil, nil, problem.New(problem.Invalid, "invalid_body", "client_id is not that of an application")
	} else if err != nil {
		return req, nil, nil, err
	}
	if req.Connection == "" {
		return req, nil, nil, problem.New(problem.Invalid, "invalid_body", "missing connection parameter")
	}
	c, err = p.dir.Connection(r.Context(), t, req.Connection)
	if problem.Is(err, problem.NotFound) || err == nil && (!c.Database() || !c.EnabledFor(client.ID)) {
		return req, nil, nil, problem.New(problem.Invalid, "invalid_connection", "The connection is no database, or is not enabled for the client")
	}
	return req, client, c, err
}

// apiSignup serves POST /dbconnections/signup.
func (p *Pages) apiSignup(w http.ResponseWriter, r *http.Request) error {
	req, client, c, err := p.read(r)
	if err != nil {
		return err
	}
	if len(req.UserMetadata) > 0 && (req.UserMetadata[0] != '{' || len(req.UserMetadata) > 16<<10) {
		return problem.New(problem.Invalid, "invalid_body", "user_metadata wants an object of at most 16 KiB")
	}
	u, err := p.users.SignUp(r.Context(), authn.SignUp{Origin: origin(r), Tenant: tenantName(r.Context()), Client: client, Connection: c, Email: req.Email,
		Username: req.Username, Password: req.Password, Name: req.Name, GivenName: req.GivenName, FamilyName: req.FamilyName, Nickname: req.Nickname,
		Picture: req.Picture, UserMetadata: req.UserMetadata})
	if err != nil {
		e := *problem.From(err)
		if e.Kind == problem.Conflict {
			e.Status = http.StatusBadRequest
		}
		return &e
	}
	body := map[string]any{"_id": u.Identities[0].UserID, "email": u.Email, "email_verified": u.EmailVerified}
	for k, v := range map[string]string{"username": u.Username, "given_name": u.GivenName, "family_name": u.FamilyName} {
		if v != "" {
			body[k] = v
		}
	}
	if len(u.UserMetadata) > 0 {
		body["user_metadata"] = u.UserMetadata
	}
	return web.JSON(w, http.StatusOK, body)
}

// apiChangePassword serves POST /dbconnections/change_password. The answer is the
// same whether there is such a user or not.
func (p *Pages) apiChangePassword(w http.ResponseWriter, r *http.Request) error {
	req, client, c, err := p.read(r)
	if err != nil {
		return err
	}
	if req.Email == "" {
		return problem.New(problem.Invalid, "invalid_body", "missing email parameter")
	}
	if c.DatabaseOptions().DisableSelfServiceChangePassword {
		return problem.New(problem.Forbidden, "reset_disabled", "Users of this connection cannot reset their password here")
	}
	if err := p.users.RequestReset(r.Context(), authn.ResetRequest{Origin: origin(r), Tenant: tenantName(r.Context()), Client: client, Connection: c, Email: strings.TrimSpace(req.Email)}); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, err = w.Write([]byte("We've just sent you an email to reset your password."))
	return err
}
