package tenant

import (
	"encoding/json"
	"slices"
	"time"
)

// Tenant is an entry of the registry. Its id is its name, the first label of its
// host, and never changes.
type Tenant struct {
	Name      string    `json:"name"`
	Root      bool      `json:"root,omitempty"` // the root tenant authority, which manages the appliance
	Owners    []string  `json:"owners,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	// Pending is a tenant that is being made: no host leads to it yet.
	Pending bool `json:"pending,omitempty"`
}

// SettingsID is the id of a tenant's one settings document.
const SettingsID = "settings"

// Settings is the view that the appliance itself has of a tenant's settings. The
// document has more fields, which belong to mgmt. Lifetimes are in hours.
type Settings struct {
	FriendlyName          string   `json:"friendly_name"`
	PictureURL            string   `json:"picture_url"`
	SupportEmail          string   `json:"support_email"`
	SupportURL            string   `json:"support_url"`
	AllowedLogoutURLs     []string `json:"allowed_logout_urls"`
	DefaultAudience       string   `json:"default_audience"`
	DefaultDirectory      string   `json:"default_directory"` // connection of the password grant
	DefaultRedirectionURI string   `json:"default_redirection_uri"`
	EnabledLocales        []string `json:"enabled_locales"`
	// Hours; 0 means the defaults of 168 (absolute) and 72 (idle).
	SessionLifetime     float64 `json:"session_lifetime"`
	IdleSessionLifetime float64 `json:"idle_session_lifetime"`
	SessionCookie       struct {
		Mode string `json:"mode"` // "persistent" (default) or "non-persistent"
	} `json:"session_cookie"`
	// SigningAlg signs ID tokens, and access tokens of APIs that name none: RS256
	// (default), PS256, ES256 or EdDSA.
	SigningAlg string `json:"signing_alg"`
	Flags      struct {
		EnablePublicSignupUserExistsError bool `json:"enable_public_signup_user_exists_error"`
		UseScopeDescriptionsForConsent    bool `json:"use_scope_descriptions_for_consent"`
		RevokeRefreshTokenGrant           bool `json:"revoke_refresh_token_grant"`
		// AllowWildcardRedirects turns on "https://*.example.com/cb" in callbacks.
		// Auth0 has it always; here a tenant opts in (docs/adr has the reasons).
		AllowWildcardRedirects bool `json:"allow_wildcard_redirects"`
	} `json:"flags"`
	OIDCLogout struct {
		EndSessionEndpointDiscovery *bool `json:"rp_logout_end_session_endpoint_discovery"`
	} `json:"oidc_logout"`
}

// Session is how long a browser session lasts at all and without use.
func (s *Settings) Session() (absolute, idle time.Duration) {
	hours := func(v, def float64) time.Duration {
		if v <= 0 {
			v = def
		}
		return time.Duration(v * float64(time.Hour))
	}
	return hours(s.SessionLifetime, 168), hours(s.IdleSessionLifetime, 72)
}

// Client is the view that the protocols have of an application. The document has
// more fields, which belong to mgmt.
type Client struct {
	ID                      string            `json:"client_id"`
	Name                    string            `json:"name"`
	Description             string            `json:"description"`
	Secret                  string            `json:"client_secret"`
	AppType                 string            `json:"app_type"` // spa, native, regular_web, non_interactive…
	FirstParty              bool              `json:"is_first_party"`
	Global                  bool              `json:"global"`
	LogoURI                 string            `json:"logo_uri"`
	Callbacks               []string          `json:"callbacks"`
	AllowedOrigins          []string          `json:"allowed_origins"`
	WebOrigins              []string          `json:"web_origins"`
	AllowedLogoutURLs       []string          `json:"allowed_logout_urls"`
	GrantTypes              []string          `json:"grant_types"`
	TokenEndpointAuthMethod string            `json:"token_endpoint_auth_method"` // none, client_secret_post, client_secret_basic
	OIDCConformant          bool              `json:"oidc_conformant"`
	InitiateLoginURI        string            `json:"initiate_login_uri"`
	ClientMetadata          map[string]string `json:"client_metadata"`
	SSODisabled             bool              `json:"sso_disabled"`
	RequirePKCE             *bool             `json:"require_proof_of_possession,omitempty"`
	JWT                     struct {
		Alg      string `json:"alg"`                 // of ID tokens; HS256, RS256, PS256, ES256, EdDSA; empty: the tenant's
		Lifetime int    `json:"lifetime_in_seconds"` // of ID tokens; 0 means 36,000
	} `json:"jwt_configuration"`
	AuthMethods *struct {
		PrivateKeyJWT *struct {
			Credentials []struct {
				ID string `json:"id"`
			} `json:"credentials"`
		} `json:"private_key_jwt"`
	} `json:"client_authentication_methods"`
	RefreshToken *RefreshPolicy `json:"refresh_token"`
}

// RefreshPolicy says how a client's refresh tokens live. Times are in seconds.
type RefreshPolicy struct {
	RotationType          string `json:"rotation_type"`   // rotating, non-rotating
	ExpirationType        string `json:"expiration_type"` // expiring, non-expiring
	Leeway                int    `json:"leeway"`          // an old token still works that long after its rotation
	TokenLifetime         int    `json:"token_lifetime"`
	IdleTokenLifetime     int    `json:"idle_token_lifetime"`
	InfiniteTokenLifetime bool   `json:"infinite_token_lifetime"`
	InfiniteIdleLifetime  bool   `json:"infinite_idle_token_lifetime"`
}

// Grants reports whether the client may use a grant type.
func (c *Client) Grants(grantType string) bool { return slices.Contains(c.GrantTypes, grantType) }

// ClientCredential is a public key that a client authenticates with.
type ClientCredential struct {
	ID        string     `json:"id"`
	ClientID  string     `json:"client_id"`
	Name      string     `json:"name,omitempty"`
	Type      string     `json:"credential_type"` // public_key, …
	KeyID     string     `json:"kid"`
	Alg       string     `json:"alg"`        // RS256, RS384, PS256
	PublicKey string     `json:"public_key"` // PEM, SubjectPublicKeyInfo
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// ResourceServer is an API that access tokens are made for.
type ResourceServer struct {
	ID                   string  `json:"id"`
	Name                 string  `json:"name"`
	Identifier           string  `json:"identifier"` // the audience
	System               bool    `json:"is_system"`  // the Management API
	Scopes               []Scope `json:"scopes"`
	SigningAlg           string  `json:"signing_alg"` // RS256, PS256, ES256, EdDSA, HS256
	SigningSecret        string  `json:"signing_secret"`
	TokenLifetime        int     `json:"token_lifetime"`         // seconds; 0 means 86,400
	TokenLifetimeForWeb  int     `json:"token_lifetime_for_web"` // seconds; 0 means 7,200
	AllowOfflineAccess   bool    `json:"allow_offline_access"`
	SkipConsent          bool    `json:"skip_consent_for_verifiable_first_party_clients"`
	EnforcePolicies      bool    `json:"enforce_policies"` // RBAC
	TokenDialect         string  `json:"token_dialect"`    // access_token, access_token_authz, rfc9068_profile, rfc9068_profile_authz
	SubjectAuthorization struct {
		User struct {
			Policy string `json:"policy"`
		} `json:"user"` // allow_all, deny_all, require_client_grant
		Client struct {
			Policy string `json:"policy"`
		} `json:"client"` // deny_all, require_client_grant
	} `json:"subject_type_authorization"`
}

// Scope is one permission of an API.
type Scope struct {
	Value       string `json:"value"`
	Description string `json:"description,omitempty"`
}

// ClientGrant lets a client ask for tokens of an API.
type ClientGrant struct {
	ID             string   `json:"id"`
	ClientID       string   `json:"client_id"`
	Audience       string   `json:"audience"`
	Scope          []string `json:"scope"`
	SubjectType    string   `json:"subject_type"` // client or user
	AllowAllScopes bool     `json:"allow_all_scopes"`
	DefaultFor     string   `json:"default_for"`
}

// Connection is a source of users.
type Connection struct {
	ID             string            `json:"id"`
	Name           string            `json:"name"`
	DisplayName    string            `json:"display_name"`
	Strategy       string            `json:"strategy"` // auth0 for databases; oidc, oauth2, google-oauth2, github, windowslive…
	EnabledClients []string          `json:"enabled_clients"`
	Realms         []string          `json:"realms"`
	Options        json.RawMessage   `json:"options"`
	Metadata       map[string]string `json:"metadata"`
	ShowAsButton   *bool             `json:"show_as_button"`
}

// StrategyDatabase is the strategy of connections that hold their own users.
const StrategyDatabase = "auth0"

// Database reports whether the connection holds its own users and passwords.
func (c *Connection) Database() bool { return c.Strategy == StrategyDatabase }

// EnabledFor reports whether a client may log users in through the connection.
func (c *Connection) EnabledFor(clientID string) bool {
	return slices.Contains(c.EnabledClients, clientID)
}

// DatabaseOptions are the options of a database connection that the appliance
// acts on.
type DatabaseOptions struct {
	PasswordPolicy       string `json:"passwordPolicy"` // none, low, fair, good, excellent
	DisableSignup        bool   `json:"disable_signup"`
	RequiresUsername     bool   `json:"requires_username"`
	BruteForceProtection *bool  `json:"brute_force_protection"` // default true
	PasswordComplexity   struct {
		MinLength int `json:"min_length"`
	} `json:"password_complexity_options"`
	PasswordHistory struct {
		Enable bool `json:"enable"`
		Size   int  `json:"size"`
	} `json:"password_history"`
	PasswordDictionary struct {
		Enable     bool     `json:"enable"`
		Dictionary []string `json:"dictionary"`
	} `json:"password_dictionary"`
	NoPersonalInfo struct {
		Enable bool `json:"enable"`
	} `json:"password_no_personal_info"`
	DisableSelfServiceChangePassword bool `json:"disable_self_service_change_password"`
	// PasswordOptions is the newer form of the rules; where it is there, it holds.
	PasswordOptions *struct {
		Complexity struct {
			MinLength int `json:"min_length"`
		} `json:"complexity"`
		ProfileData struct {
			Active bool `json:"active"`
		} `json:"profile_data"`
		History struct {
			Active bool `json:"active"`
			Size   int  `json:"size"`
		} `json:"history"`
		Dictionary struct {
			Active bool     `json:"active"`
			Custom []string `json:"custom"`
		} `json:"dictionary"`
	} `json:"password_options"`
	Validation struct {
		Username struct {
			Min int `json:"min"` // default 1
			Max int `json:"max"` // default 15
		} `json:"username"`
	} `json:"validation"`
}

// DatabaseOptions decodes the options of a database connection.
func (c *Connection) DatabaseOptions() DatabaseOptions {
	var o DatabaseOptions
	if len(c.Options) > 0 {
		// mgmt validated the options when they were stored; a field of another type
		// than expected leaves its default, which is the strict one.
		_ = json.Unmarshal(c.Options, &o)
	}
	if p := o.PasswordOptions; p != nil {
		o.PasswordComplexity.MinLength = p.Complexity.MinLength
		o.NoPersonalInfo.Enable = p.ProfileData.Active
		o.PasswordHistory.Enable, o.PasswordHistory.Size = p.History.Active, p.History.Size
		o.PasswordDictionary.Enable, o.PasswordDictionary.Dictionary = p.Dictionary.Active, p.Dictionary.Custom
	}
	return o
}

// Role is a named set of permissions.
type Role struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
}

// Permission is a scope of an API, as roles and users hold it.
type Permission struct {
	ResourceServer string `json:"resource_server_identifier"`
	Name           string `json:"permission_name"`
}

// RolePermission is a permission that a role holds.
type RolePermission struct {
	RoleID string `json:"role_id"`
	Permission
}

// UserPermission is a permission that a user holds directly.
type UserPermission struct {
	UserID string `json:"user_id"`
	Permission
}

// UserRole is a role that a user holds.
type UserRole struct {
	UserID string `json:"user_id"`
	RoleID string `json:"role_id"`
}

// ID is the document id of the assignment.
func (p RolePermission) ID() string { return p.RoleID + "|" + p.ResourceServer + "|" + p.Name }

// ID is the document id of the assignment.
func (p UserPermission) ID() string { return p.UserID + "|" + p.ResourceServer + "|" + p.Name }

// ID is the document id of the assignment.
func (u UserRole) ID() string { return u.UserID + "|" + u.RoleID }
