package tenant

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/sjson"

	"github.com/portcullis-id/portcullis/problem"
)

// User is a person, with one or more identities. The first identity is the
// primary one; its provider and id make the user's id.
type User struct {
	ID                string          `json:"user_id"`
	Email             string          `json:"email,omitempty"`
	EmailVerified     bool            `json:"email_verified"`
	Username          string          `json:"username,omitempty"`
	PhoneNumber       string          `json:"phone_number,omitempty"`
	PhoneVerified     *bool           `json:"phone_verified,omitempty"`
	Name              string          `json:"name,omitempty"`
	Nickname          string          `json:"nickname,omitempty"`
	GivenName         string          `json:"given_name,omitempty"`
	FamilyName        string          `json:"family_name,omitempty"`
	Picture           string          `json:"picture,omitempty"`
	Identities        []Identity      `json:"identities"`
	UserMetadata      json.RawMessage `json:"user_metadata,omitempty"`
	AppMetadata       json.RawMessage `json:"app_metadata,omitempty"`
	Multifactor       []string        `json:"multifactor,omitempty"`
	Blocked           *bool           `json:"blocked,omitempty"`
	LastIP            string          `json:"last_ip,omitempty"`
	LastLogin         *time.Time      `json:"last_login,omitempty"`
	LoginsCount       int             `json:"logins_count,omitempty"`
	LastPasswordReset *time.Time      `json:"last_password_reset,omitempty"`
	CreatedAt         time.Time       `json:"created_at"`
	UpdatedAt         time.Time       `json:"updated_at"`
	// Extra holds root attributes that only some providers give, such as locale.
	Extra map[string]json.RawMessage `json:"-"`
}

// Identity is one account of a user at a connection.
type Identity struct {
	Connection   string          `json:"connection"` // its name
	ConnectionID string          `json:"connection_id,omitempty"`
	Provider     string          `json:"provider"` // the connection's strategy
	UserID       string          `json:"user_id"`  // at the provider
	IsSocial     bool            `json:"isSocial"`
	ProfileData  json.RawMessage `json:"profileData,omitempty"` // of a linked identity
}

type plainUser User // without the methods, so that encoding does not recurse

var userFields = func() map[string]bool {
	// The names are taken from the type itself, so that Extra never shadows a field.
	full := plainUser{PhoneVerified: new(bool), Blocked: new(bool), LastLogin: &time.Time{}, LastPasswordReset: &time.Time{},
		Email: "x", Username: "x", PhoneNumber: "x", Name: "x", Nickname: "x", GivenName: "x", FamilyName: "x", Picture: "x",
		LastIP: "x", LoginsCount: 1, Multifactor: []string{"x"}, UserMetadata: []byte(`{}`), AppMetadata: []byte(`{}`)}
	raw, _ := json.Marshal(full)
	var m map[string]json.RawMessage
	_ = json.Unmarshal(raw, &m)
	names := make(map[string]bool, len(m))
	for k := range m {
		names[k] = true
	}
	return names
}()

// MarshalJSON writes the fields and, beside them, Extra.
func (u User) MarshalJSON() ([]byte, error) {
	raw, err := json.Marshal(plainUser(u))
	if err != nil || len(u.Extra) == 0 {
		return raw, err
	}
	var b bytes.Buffer
	b.Write(raw[:len(raw)-1])
	keys := make([]string, 0, len(u.Extra))
	for k := range u.Extra {
		if !userFields[k] {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		name, _ := json.Marshal(k)
		b.WriteByte(',')
		b.Write(name)
		b.WriteByte(':')
		b.Write(u.Extra[k])
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON reads the fields and keeps what has none in Extra.
func (u *User) UnmarshalJSON(raw []byte) error {
	var p plainUser
	if err := json.Unmarshal(raw, &p); err != nil {
		return err
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		return err
	}
	for k, v := range m {
		if !userFields[k] {
			if p.Extra == nil {
				p.Extra = map[string]json.RawMessage{}
			}
			p.Extra[k] = v
		}
	}
	*u = User(p)
	return nil
}

// IsBlocked reports whether an administrator blocked the user.
func (u *User) IsBlocked() bool { return u.Blocked != nil && *u.Blocked }

// IdentifierType says what a text that a user types in to log in is.
type IdentifierType string

// The identifiers of a database user.
const (
	ByEmail    IdentifierType = "email"
	ByUsername IdentifierType = "username"
	ByPhone    IdentifierType = "phone"
)

type identifier struct {
	UserID       string `json:"user_id"`
	ConnectionID string `json:"connection_id"`
}

func identifierID(connectionID string, t IdentifierType, value string) string {
	return connectionID + "|" + string(t) + "|" + strings.ToLower(value)
}

func identityID(connectionID, sub string) string { return connectionID + "|" + sub }

type password struct {
	UserID  string    `json:"user_id"`
	Hash    string    `json:"hash"` // PHC or modular crypt form; package password knows the forms
	SetAt   time.Time `json:"set_at"`
	History []string  `json:"history,omitempty"` // hashes of former passwords, newest first
}

// CreateUser stores a new user of a connection inside a transaction. u.ID may be
// empty, or hold the id to have without the provider's prefix; u.Identities is
// filled in for an empty one. hash is empty for users of other providers. It
// fails with problem.Conflict and code "user_exists" when the email, username or
// phone number is taken in this connection.
func CreateUser(tx Tx, c *Connection, u *User, hash string) error {
	now := tx.Now()
	if len(u.Identities) == 0 {
		id := u.ID
		if id == "" {
			id = NewObjectID(now)
		}
		u.Identities = []Identity{{Connection: c.Name, Provider: c.Strategy, UserID: id, IsSocial: !c.Database()}}
	}
	primary := &u.Identities[0]
	primary.ConnectionID = c.ID
	u.ID = primary.Provider + "|" + primary.UserID
	u.CreatedAt, u.UpdatedAt = now, now
	if c.Database() {
		if err := addIdentifiers(tx, c.ID, u); err != nil {
			return err
		}
	}
	exists := problem.New(problem.Conflict, "user_exists", "The user already exists.")
	if err := Add(tx, KindIdentity, identityID(c.ID, primary.UserID), identifier{u.ID, c.ID}); problem.Is(err, problem.Conflict) {
		return exists
	} else if err != nil {
		return err
	}
	if err := Add(tx, KindUser, u.ID, u); problem.Is(err, problem.Conflict) {
		return exists
	} else if err != nil {
		return err
	}
	if hash == "" {
		return nil
	}
	return Add(tx, KindPassword, identityID(c.ID, primary.UserID), password{UserID: u.ID, Hash: hash, SetAt: now})
}

func userIdentifiers(connectionID string, u *User) map[string]bool {
	ids := map[string]bool{}
	for t, v := range map[IdentifierType]string{ByEmail: u.Email, ByUsername: u.Username, ByPhone: u.PhoneNumber} {
		if v != "" {
			ids[identifierID(connectionID, t, v)] = true
		}
	}
	return ids
}

func addIdentifiers(tx Tx, connectionID string, u *User) error {
	for id := range userIdentifiers(connectionID, u) {
		if err := Add(tx, KindIdentifier, id, identifier{u.ID, connectionID}); problem.Is(err, problem.Conflict) {
			return problem.New(problem.Conflict, "user_exists", "The user already exists.").About("identifier")
		} else if err != nil {
			return err
		}
	}
	return nil
}

// UpdateUser applies fn to a user inside a transaction and keeps what the user
// logs in with in step. It fails with problem.Conflict and code "user_exists"
// when a new email, username or phone number is taken.
func UpdateUser(tx Tx, id string, fn func(*User) error) (*User, error) {
	var before map[string]bool
	connectionID, email := "", ""
	u, err := Change(tx, KindUser, id, func(u *User) error {
		for _, i := range u.Identities {
			if i.Provider == StrategyDatabase {
				connectionID = i.ConnectionID
				break
			}
		}
		before, email = userIdentifiers(connectionID, u), u.Email
		if err := fn(u); err != nil {
			return err
		}
		u.UpdatedAt = tx.Now()
		return nil
	})
	if err != nil {
		return nil, err
	}
	if connectionID == "" {
		return u, nil
	}
	if u.Email != email {
		// Tickets that went to the old address must not open the account any more.
		if _, err := tx.DeleteWhere(KindOnce, []Cond{{Column: "subject", Value: id}}); err != nil {
			return nil, err
		}
	}
	after := userIdentifiers(connectionID, u)
	for key := range before {
		if !after[key] {
			if _, err := tx.Delete(KindIdentifier, key); err != nil {
				return nil, err
			}
		}
	}
	for key := range after {
		if before[key] {
			continue
		}
		if err := Add(tx, KindIdentifier, key, identifier{u.ID, connectionID}); problem.Is(err, problem.Conflict) {
			return nil, problem.New(problem.Conflict, "user_exists", "The specified new email, username or phone number already exists").About("identifier")
		} else if err != nil {
			return nil, err
		}
	}
	return u, nil
}

// DeleteUser removes a user with everything that is theirs inside a transaction:
// identities, password, roles, permissions, sessions, refresh tokens, consents
// and tickets. It reports whether the user was there.
func DeleteUser(tx Tx, id string) (bool, error) {
	there, err := tx.Delete(KindUser, id)
	if err != nil || !there {
		return there, err
	}
	for _, k := range []Kind{KindIdentity, KindIdentifier, KindPassword, KindUserRole, KindUserPermission, KindSession, KindRefreshToken, KindConsent} {
		if _, err := tx.DeleteWhere(k, []Cond{{Column: "user_id", Value: id}}); err != nil {
			return true, fmt.Errorf("delete %s of a user: %w", k, err)
		}
	}
	_, err = tx.DeleteWhere(KindOnce, []Cond{{Column: "subject", Value: id}})
	return true, err
}

// UserByIdentifier finds the user of a database connection who logs in with a
// value, ignoring case, or fails with problem.NotFound.
func UserByIdentifier(tx Tx, c *Connection, t IdentifierType, value string) (*User, error) {
	return userByRef(tx, KindIdentifier, identifierID(c.ID, t, value))
}

// UserByIdentity finds the user who has an account at a connection, or fails with
// problem.NotFound.
func UserByIdentity(tx Tx, c *Connection, sub string) (*User, error) {
	return userByRef(tx, KindIdentity, identityID(c.ID, sub))
}

func userByRef(tx Tx, k Kind, ref string) (*User, error) {
	to, err := Load[identifier](tx, k, ref)
	if err != nil {
		return nil, err
	}
	return Load[User](tx, KindUser, to.UserID)
}

// passwordID is the document of a user's password at a database connection. It
// hangs on the identity, so that a linked account keeps its own.
func passwordID(c *Connection, u *User) (string, error) {
	for _, i := range u.Identities {
		if i.ConnectionID == c.ID {
			return identityID(c.ID, i.UserID), nil
		}
	}
	return "", problem.New(problem.NotFound, "inexistent_identity", "The user has no account at the connection %s", c.Name)
}

// PasswordHash returns the hash of a user's password at a database connection and
// the former ones, newest first, or fails with problem.NotFound when there is
// none.
func PasswordHash(tx Tx, c *Connection, u *User) (hash string, former []string, err error) {
	id, err := passwordID(c, u)
	if err != nil {
		return "", nil, err
	}
	p, err := Load[password](tx, KindPassword, id)
	if err != nil {
		return "", nil, err
	}
	return p.Hash, p.History, nil
}

// maxHistory is how many former passwords are kept; a connection asks for at most
// as many.
const maxHistory = 24

// SetPasswordHash stores the hash of a new password inside a transaction. With
// rehash set it is the old password in a new form: no history, no reset date.
func SetPasswordHash(tx Tx, c *Connection, u *User, hash string, rehash bool) error {
	id, err := passwordID(c, u)
	if err != nil {
		return err
	}
	now := tx.Now()
	old, err := Load[password](tx, KindPassword, id)
	if err != nil && !problem.Is(err, problem.NotFound) {
		return err
	}
	p := password{UserID: u.ID, Hash: hash, SetAt: now}
	if old != nil {
		p.History = old.History
		if rehash {
			p.SetAt = old.SetAt
		} else {
			p.History = append([]string{old.Hash}, p.History...)
			p.History = p.History[:min(len(p.History), maxHistory)]
		}
	}
	if err := Set(tx, KindPassword, id, p); err != nil || rehash {
		return err
	}
	_, err = Change(tx, KindUser, u.ID, func(u *User) error {
		u.LastPasswordReset, u.UpdatedAt = &now, now
		return nil
	})
	return err
}

// LinkIdentity makes the accounts of secondary also accounts of the user
// primaryID, and removes secondary, inside a transaction.
func LinkIdentity(tx Tx, primaryID, secondaryID string) (*User, error) {
	if primaryID == secondaryID {
		return nil, problem.New(problem.Invalid, "invalid_body", "Main and secondary accounts must be different")
	}
	secondary, err := Load[User](tx, KindUser, secondaryID)
	if err != nil {
		return nil, err
	}
	profile, err := json.Marshal(map[string]any{
		"email": secondary.Email, "email_verified": secondary.EmailVerified, "name": secondary.Name, "nickname": secondary.Nickname,
		"given_name": secondary.GivenName, "family_name": secondary.FamilyName, "picture": secondary.Picture,
		"phone_number": secondary.PhoneNumber, "username": secondary.Username,
	})
	if err != nil {
		return nil, err
	}
	moved := slices.Clone(secondary.Identities)
	for i := range moved {
		if len(moved[i].ProfileData) == 0 {
			moved[i].ProfileData = profile
		}
	}
	u, err := Change(tx, KindUser, primaryID, func(u *User) error {
		u.Identities = append(u.Identities, moved...)
		u.UpdatedAt = tx.Now()
		return nil
	})
	if err != nil {
		return nil, err
	}
	// What the account logs in with, and its password, move along with it.
	for _, k := range []Kind{KindIdentity, KindIdentifier, KindPassword} {
		refs, err := tx.Find(k, Query{Where: []Cond{{Column: "user_id", Value: secondaryID}}})
		if err != nil {
			return nil, err
		}
		for _, rec := range refs.Records {
			if rec.Doc, err = sjson.SetBytes(rec.Doc, "user_id", primaryID); err != nil {
				return nil, fmt.Errorf("encode %s: %w", k, err)
			}
			if err := tx.Replace(k, rec); err != nil {
				return nil, err
			}
		}
	}
	_, err = DeleteUser(tx, secondaryID)
	return u, err
}

// UnlinkIdentity takes a linked account away from a user inside a transaction.
// The account becomes a user of its own again when it logs in next. The primary
// identity stays.
func UnlinkIdentity(tx Tx, userID, provider, sub string) (*User, error) {
	var gone *Identity
	u, err := Change(tx, KindUser, userID, func(u *User) error {
		for i := range u.Identities {
			if u.Identities[i].Provider == provider && u.Identities[i].UserID == sub {
				if i == 0 {
					return problem.New(problem.Invalid, "invalid_body", "Main identity cannot be unlinked")
				}
				id := u.Identities[i]
				gone = &id
				u.Identities = slices.Delete(u.Identities, i, i+1)
				u.UpdatedAt = tx.Now()
				return nil
			}
		}
		return problem.New(problem.NotFound, "inexistent_identity", "The user has no identity %s|%s", provider, sub)
	})
	if err != nil {
		return nil, err
	}
	for _, k := range []Kind{KindIdentity, KindPassword} {
		if _, err := tx.Delete(k, identityID(gone.ConnectionID, gone.UserID)); err != nil {
			return nil, err
		}
	}
	if gone.Provider == StrategyDatabase {
		_, err = tx.DeleteWhere(KindIdentifier, []Cond{{Column: "user_id", Value: userID}, {Column: "connection_id", Value: gone.ConnectionID}})
	}
	return u, err
}
