package oauth

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/portcullis-id/portcullis/once"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// errRestart is what a page shows when its login cannot go on.
func errRestart(cause error) error {
	return problem.Wrap(problem.Invalid, "invalid_transaction", cause,
		"This login cannot go on: it was finished already, took too long, or was begun in another browser. Go back to the application and log in again.")
}

// seal encrypts a value for the tenant's own use; purpose keeps apart what is
// sealed for different ends.
func (p *Provider) seal(ctx context.Context, tenantID, purpose string, v any) (string, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	keys, err := p.keys.Secrets(ctx, tenantID)
	if err != nil {
		return "", err
	}
	aead, err := gcm(keys[0])
	if err != nil {
		return "", err
	}
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(plain)+aead.Overhead())
	rand.Read(nonce)
	return base64.RawURLEncoding.EncodeToString(aead.Seal(nonce, nonce, plain, []byte(tenantID+"|"+purpose))), nil
}

func gcm(key [32]byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

var errSeal = errors.New("the sealed value is forged, damaged or of another tenant")

// open decrypts what seal made for the same tenant and purpose.
func (p *Provider) open(ctx context.Context, tenantID, purpose, sealed string, into any) error {
	if len(sealed) > 16<<10 {
		return errSeal
	}
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return errSeal
	}
	keys, err := p.keys.Secrets(ctx, tenantID)
	if err != nil {
		return err
	}
	for _, key := range keys {
		aead, err := gcm(key)
		if err != nil {
			return err
		}
		if len(raw) < aead.NonceSize() {
			return errSeal
		}
		if plain, err := aead.Open(nil, raw[:aead.NonceSize()], raw[aead.NonceSize():], []byte(tenantID+"|"+purpose)); err == nil {
			return json.Unmarshal(plain, into)
		}
	}
	return errSeal
}

// begin sends the browser to a page with the request sealed into its state.
func (p *Provider) begin(w http.ResponseWriter, r *http.Request, page string, req Request, sessionID string) error {
	t := &Transaction{ID: tenant.RandomString(22), Tenant: tenantOf(r.Context()), Browser: browser(w, r), CreatedAt: p.now().UTC(), Request: req, SessionID: sessionID}
	state, err := p.seal(r.Context(), t.Tenant, "transaction", t)
	if err != nil {
		return fmt.Errorf("seal the transaction: %w", err)
	}
	noStore(w)
	http.Redirect(w, r, page+"?state="+url.QueryEscape(state), http.StatusFound)
	return nil
}

func noStore(w http.ResponseWriter) { w.Header().Set("Cache-Control", "no-store") }

// Transaction implements Flow.
func (p *Provider) Transaction(r *http.Request, state string) (*Transaction, error) {
	var t Transaction
	if err := p.open(r.Context(), tenantOf(r.Context()), "transaction", state, &t); errors.Is(err, errSeal) {
		return nil, errRestart(err)
	} else if err != nil {
		return nil, err
	}
	if !p.now().Before(t.CreatedAt.Add(transactionTTL)) {
		return nil, errRestart(errors.New("the transaction has expired"))
	}
	c, err := r.Cookie(browserCookie)
	if err != nil || subtle.ConstantTimeCompare([]byte(hashed(c.Value)), []byte(t.Browser)) != 1 {
		return nil, errRestart(errors.New("the transaction belongs to another browser"))
	}
	return &t, nil
}

// use takes a transaction up inside a store transaction.
func use(tx tenant.Tx, t *Transaction) error {
	err := once.Claim(tx, once.Transaction, t.ID, transactionTTL)
	if problem.From(err).Code == once.CodeUsed {
		return errRestart(err)
	}
	return err
}

// Authenticated implements Flow.
func (p *Provider) Authenticated(w http.ResponseWriter, r *http.Request, t *Transaction, l Login) error {
	settings, err := p.dir.Settings(r.Context(), t.Tenant)
	if err != nil {
		return err
	}
	old, _ := r.Cookie(sessionCookie)
	value := once.New()
	var s *Session
	err = p.docs.Write(r.Context(), t.Tenant, func(tx tenant.Tx) (err error) {
		if err := use(tx, t); err != nil {
			return err
		}
		if old != nil && len(old.Value) <= 128 {
			if _, err := tx.Delete(tenant.KindSession, hashed(old.Value)); err != nil {
				return err
			}
		}
		s, err = p.newSession(tx, settings, l, value)
		return err
	})
	if err != nil {
		return err
	}
	setSessionCookie(w, value, settings)
	req := t.Request
	// The login has just happened: what asked for it is satisfied.
	if req.Prompt != "consent" {
		req.Prompt = ""
	}
	return p.proceed(w, r, req, s)
}

// proceed goes on with a request whose user is known: to consent, or back to the
// client with a code.
func (p *Provider) proceed(w http.ResponseWriter, r *http.Request, req Request, s *Session) error {
	q, needed, err := p.consentNeeded(r.Context(), tenantOf(r.Context()), req, s)
	if err != nil {
		return p.sendError(w, r, req, err)
	}
	if needed {
		if req.Prompt == "none" {
			return p.sendError(w, r, req, problem.New(problem.Invalid, "consent_required", "Consent required"))
		}
		return p.begin(w, r, ConsentPath, req, s.ID)
	}
	return p.issueCode(w, r, req, s, q.Client)
}

type consent struct {
	UserID    string   `json:"user_id"`
	ClientID  string   `json:"client_id"`
	Audience  string   `json:"audience"`
	Scope     []string `json:"scope"`
	GrantedAt string   `json:"granted_at"`
}

func consentID(userID, clientID, audience string) string {
	return hashed(userID + "\x00" + clientID + "\x00" + audience)
}

// consentNeeded: an application of somebody else asks its users; one of the
// tenant's own only when the request says prompt=consent.
func (p *Provider) consentNeeded(ctx context.Context, tenantID string, req Request, s *Session) (Question, bool, error) {
	q := Question{}
	client, err := p.dir.Client(ctx, tenantID, req.ClientID)
	if err != nil {
		return q, false, err
	}
	q.Client = client
	if client.FirstParty && req.Prompt != "consent" {
		return q, false, nil
	}
	api, err := p.api(ctx, tenantID, req.Audience)
	if err != nil {
		return q, false, err
	}
	granted, _, err := p.grantScopes(ctx, tenantID, req.Scope, api, client, s.UserID)
	if err != nil {
		return q, false, err
	}
	settings, err := p.dir.Settings(ctx, tenantID)
	if err != nil {
		return q, false, err
	}
	if api != nil {
		q.API = api.Name
	}
	for _, name := range granted {
		scope := tenant.Scope{Value: name}
		if api != nil && settings.Flags.UseScopeDescriptionsForConsent {
			if i := slices.IndexFunc(api.Scopes, func(a tenant.Scope) bool { return a.Value == name }); i >= 0 {
				scope.Description = api.Scopes[i].Description
			}
		}
		q.Scopes = append(q.Scopes, scope)
	}
	if req.Prompt == "consent" {
		return q, true, nil
	}
	c, err := tenant.Get[consent](ctx, p.docs, tenantID, tenant.KindConsent, consentID(s.UserID, client.ID, req.Audience))
	if problem.Is(err, problem.NotFound) {
		return q, true, nil
	}
	if err != nil {
		return q, false, err
	}
	for _, name := range granted {
		if !slices.Contains(c.Scope, name) {
			return q, true, nil
		}
	}
	return q, false, nil
}

// own returns the browser's session if a transaction belongs to it.
func (p *Provider) own(r *http.Request, t *Transaction) (*Session, error) {
	s, err := p.session(r)
	if err != nil {
		return nil, err
	}
	if s == nil || t.SessionID == "" || s.ID != t.SessionID {
		return nil, errRestart(errors.New("the page belongs to another session"))
	}
	return s, nil
}

// ConsentQuestion implements Flow.
func (p *Provider) ConsentQuestion(r *http.Request, t *Transaction) (Question, error) {
	s, err := p.own(r, t)
	if err != nil {
		return Question{}, err
	}
	req := t.Request
	req.Prompt = "consent"
	q, _, err := p.consentNeeded(r.Context(), t.Tenant, req, s)
	if err != nil {
		return q, err
	}
	q.User, err = tenant.Get[tenant.User](r.Context(), p.docs, t.Tenant, tenant.KindUser, s.UserID)
	return q, err
}

// Consented implements Flow.
func (p *Provider) Consented(w http.ResponseWriter, r *http.Request, t *Transaction, granted bool) error {
	s, err := p.own(r, t)
	if err != nil {
		return err
	}
	q, err := p.ConsentQuestion(r, t)
	if err != nil {
		return err
	}
	names := make([]string, len(q.Scopes))
	for i, scope := range q.Scopes {
		names[i] = scope.Value
	}
	err = p.docs.Write(r.Context(), t.Tenant, func(tx tenant.Tx) error {
		if err := use(tx, t); err != nil || !granted {
			return err
		}
		c := consent{UserID: s.UserID, ClientID: t.Request.ClientID, Audience: t.Request.Audience, GrantedAt: tx.Now().Format("2006-01-02T15:04:05Z"), Scope: names}
		id := consentID(c.UserID, c.ClientID, c.Audience)
		old, err := tenant.Load[consent](tx, tenant.KindConsent, id)
		if err != nil && !problem.Is(err, problem.NotFound) {
			return err
		}
		if old != nil {
			c.Scope = append(c.Scope, old.Scope...)
			slices.Sort(c.Scope)
			c.Scope = slices.Compact(c.Scope)
		}
		return tenant.Set(tx, tenant.KindConsent, id, c)
	})
	if err != nil {
		return err
	}
	if !granted {
		return p.Fail(w, r, t, problem.New(problem.Forbidden, "access_denied", "User did not authorize the request"))
	}
	e := p.event(r, tenant.LogConsent, q.Client)
	e.UserID = s.UserID
	p.log.Append(t.Tenant, e)
	return p.issueCode(w, r, t.Request, s, q.Client)
}

// Fail implements Flow.
func (p *Provider) Fail(w http.ResponseWriter, r *http.Request, t *Transaction, e *problem.Error) error {
	return p.sendError(w, r, t.Request, e)
}
