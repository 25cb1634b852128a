package ratelimit

// The bucket types that every appliance has. Their numbers are those that Auth0
// published for its private deployments.
const (
	AuthenticationAPI        = "authentication-api"
	AuthenticationAPIIP      = "authentication-api-ip"
	TokenClient              = "token-client"
	ManagementAPI            = "management-api"
	ManagementAPIToken       = "management-api-token"
	UserInfo                 = "userinfo"
	Login                    = "login"
	Signup                   = "signup"
	ChangePassword           = "change-password"
	PasswordlessStart        = "passwordless-start"
	NativeSocial             = "native-social"
	ConnectionStatus         = "connection-status"
	SigningKeyRotation       = "signing-key-rotation"
	CustomDomainVerify       = "custom-domain-verify"
	LogEvents                = "log-events"
	DefaultTier         Tier = "1500"
)

// Tier is how much one tenant may ask for, as requests a second to its
// Authentication API.
type Tier string

// Tiers are the published ones, the smallest first.
func Tiers() []Tier { return []Tier{"20", "100", "500", "1500"} }

// rates of a tier: the Authentication API's and the Management API's, a second.
var rates = map[Tier][2]int64{"20": {20, 20}, "100": {100, 50}, "500": {500, 250}, "1500": {1500, 750}}

// Defaults are the bucket types of a tier; an unknown tier is DefaultTier.
func Defaults(t Tier) []Bucket {
	r, ok := rates[t]
	if !ok {
		r = rates[DefaultTier]
	}
	return []Bucket{
		{Name: AuthenticationAPI, Key: "tenant", Doc: "Requests to /authorize, /oauth, /userinfo, /dbconnections, /passwordless, logout and the login pages.", Spec: Spec{PerSecond: r[0]}},
		{Name: AuthenticationAPIIP, Key: "tenant|IP", Doc: "The same requests of one address.", Spec: Spec{Unlimited: true}},
		{Name: TokenClient, Key: "tenant|client_id", Doc: "Requests to /oauth/token of one application.", Spec: Spec{Unlimited: true}},
		{Name: ManagementAPI, Key: "tenant", Doc: "Requests to /api/v2.", Spec: Spec{PerSecond: r[1]}},
		{Name: ManagementAPIToken, Key: "tenant|token", Doc: "Requests to /api/v2 with one access token. The key has the beginning of its SHA-256.", Spec: Spec{Unlimited: true}},
		{Name: UserInfo, Key: "tenant|token", Doc: "Requests to /userinfo with one access token. The key has the beginning of its SHA-256.", Spec: Spec{Size: 10, PerMinute: 5}},
		{Name: Login, Key: "tenant|user|IP", Doc: "Passwords of one user that come from one address, right or wrong.", Spec: Spec{Size: 20, PerMinute: 10}},
		{Name: Signup, Key: "tenant|IP", Doc: "Sign-ups.", Spec: Spec{PerMinute: 50}},
		{Name: ChangePassword, Key: "tenant|mail|IP", Doc: "Requests for a mail to choose a new password with.", Spec: Spec{Size: 10, PerMinute: 1}},
		{Name: PasswordlessStart, Key: "tenant|IP", Doc: "One-time codes and links that are sent.", Spec: Spec{PerHour: 50}},
		{Name: NativeSocial, Key: "tenant", Doc: "Token exchanges of native applications with a social provider.", Spec: Spec{Size: 50, PerMinute: 500}},
		{Name: ConnectionStatus, Key: "tenant", Doc: "Requests for the status of a connection.", Spec: Spec{Size: 100, PerSecond: 15}},
		{Name: SigningKeyRotation, Key: "tenant", Doc: "Rotations of the signing key.", Spec: Spec{PerDay: 5}, OnFailure: Closed},
		{Name: CustomDomainVerify, Key: "tenant", Doc: "Verifications of a custom domain.", Spec: Spec{PerMinute: 5}, OnFailure: Closed},
		{Name: LogEvents, Key: "bucket|key", Doc: "Log events that say that a key is over its limit.", Spec: Spec{PerMinute: 1}, OnFailure: Closed},
	}
}
