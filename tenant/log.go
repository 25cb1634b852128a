package tenant

import (
	"encoding/json"
	"time"
)

// LogEvent is one entry of a tenant's log, in the form of Auth0's log events.
type LogEvent struct {
	ID           string          `json:"log_id"`
	Date         time.Time       `json:"date"`
	Type         LogType         `json:"type"`
	Description  string          `json:"description,omitempty"`
	ConnectionID string          `json:"connection_id,omitempty"`
	Connection   string          `json:"connection,omitempty"`
	Strategy     string          `json:"strategy,omitempty"`
	StrategyType string          `json:"strategy_type,omitempty"`
	ClientID     string          `json:"client_id,omitempty"`
	ClientName   string          `json:"client_name,omitempty"`
	IP           string          `json:"ip,omitempty"`
	UserAgent    string          `json:"user_agent,omitempty"`
	Hostname     string          `json:"hostname,omitempty"`
	UserID       string          `json:"user_id,omitempty"`
	UserName     string          `json:"user_name,omitempty"`
	Audience     string          `json:"audience,omitempty"`
	Scope        string          `json:"scope,omitempty"`
	IsMobile     bool            `json:"isMobile"`
	Details      json.RawMessage `json:"details,omitempty"`
}

// LogType is one of Auth0's event type codes.
type LogType string

// The types of log events that the appliance writes.
const (
	LogLogin                   LogType = "s"         // success login
	LogSilentAuth              LogType = "ssa"       // success silent authentication
	LogFailedSilentAuth        LogType = "fsa"       // failed silent authentication
	LogFailedLogin             LogType = "f"         // failed login
	LogFailedPassword          LogType = "fp"        // wrong password
	LogFailedUser              LogType = "fu"        // unknown email or username
	LogSignup                  LogType = "ss"        // success signup
	LogFailedSignup            LogType = "fs"        // failed signup
	LogLogout                  LogType = "slo"       // success logout
	LogFailedLogout            LogType = "flo"       // failed logout
	LogCodeExchange            LogType = "seacft"    // authorization code for access token
	LogFailedCodeExchange      LogType = "feacft"    // failed exchange of an authorization code
	LogClientCredentials       LogType = "seccft"    // client credentials for access token
	LogFailedClientCredentials LogType = "feccft"    // failed client credentials exchange
	LogRefresh                 LogType = "sertft"    // refresh token for access token
	LogFailedRefresh           LogType = "fertft"    // failed exchange of a refresh token
	LogReusedRefresh           LogType = "ferrt"     // a rotated refresh token came back
	LogPasswordExchange        LogType = "sepft"     // password for access token
	LogFailedPasswordExchange  LogType = "fepft"     // failed exchange of a password
	LogRevoke                  LogType = "srrt"      // success revoke of a refresh token
	LogUserBlocked             LogType = "limit_wc"  // brute force: blocked account of user and IP
	LogIPBlocked               LogType = "limit_mu"  // blocked IP: too many wrong passwords or signups
	LogManyLogins              LogType = "limit_sul" // too many logins of one user from one IP
	LogUnblocked               LogType = "unblocked_user"
	LogVerificationEmail       LogType = "sv"         // success verification of an email
	LogFailedVerification      LogType = "fv"         // failed verification of an email
	LogVerificationSent        LogType = "svr"        // verification email requested
	LogPasswordChange          LogType = "scp"        // success change of a password
	LogFailedPasswordChange    LogType = "fcp"        // failed change of a password
	LogPasswordChangeRequest   LogType = "scpr"       // password change requested
	LogFailedPwdChangeRequest  LogType = "fcpr"       // failed request of a password change
	LogConsent                 LogType = "sce"        // consent given
	LogFailedAPI               LogType = "fapi"       // failed Management API operation
	LogAPI                     LogType = "sapi"       // success Management API operation
	LogAPILimit                LogType = "api_limit"  // rate limit of an API reached
	LogUserDeleted             LogType = "du"         // deleted user
	LogUsersImport             LogType = "slu_import" // users import ended
	LogDepnote                 LogType = "depnote"    // deprecation
	LogWarning                 LogType = "w"          // warning during login
	LogMailSent                LogType = "sent_email" // a mail went out
	LogMailFailed              LogType = "fn"         // a mail could not be sent
	LogFailedClientAuth        LogType = "fede"       // failed client authentication
)

// Log takes events of a tenant. It never blocks for the store and never fails:
// what it accepted is written in batches, and a clean stop writes the rest. Date,
// ID and empty request properties (IP, Hostname, UserAgent) are filled in from r
// where possible.
type Log interface {
	Append(tenant string, e LogEvent)
}
