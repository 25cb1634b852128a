package oauth

import (
	"context"
	"slices"
	"strings"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// maxScopes and maxScope bound what a request asks for.
const maxScopes, maxScope = 200, 8192

// oidcScopes are the scopes of OpenID Connect Core section 5.4 and 11.
var oidcScopes = []string{"openid", "profile", "email", "phone", "address", "offline_access"}

// parseScope reads a scope parameter (RFC 6749 section 3.3): tokens with spaces
// between them, without doubles, in the order of the request.
func parseScope(s string) ([]string, error) {
	if len(s) > maxScope {
		return nil, problem.New(problem.Invalid, "invalid_scope", "scope is longer than the %d characters that are allowed", maxScope)
	}
	var out []string
	for _, f := range strings.FieldsFunc(s, func(r rune) bool { return r == ' ' }) {
		for i := range len(f) {
			if c := f[i]; c < 0x21 || c > 0x7e || c == '"' || c == '\\' {
				return nil, problem.New(problem.Invalid, "invalid_scope", "scope has a character that is not allowed (RFC 6749 section 3.3)")
			}
		}
		if !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	if len(out) > maxScopes {
		return nil, problem.New(problem.Invalid, "invalid_scope", "scope has more than the %d values that are allowed", maxScopes)
	}
	return out, nil
}

func isOIDC(s string) bool { return slices.Contains(oidcScopes, s) }

// grantScopes decides which of the scopes that a request asked for a user's token
// gets: those of OpenID Connect, and those that the API declares and, with role
// based access control, the user holds. permissions are what goes into the claim
// of that name, or nil where the API's dialect has none.
func (p *Provider) grantScopes(ctx context.Context, tenantID string, asked []string, api *tenant.ResourceServer, client *tenant.Client, userID string) (granted, permissions []string, err error) {
	var held []string
	if api != nil && api.EnforcePolicies {
		if held, err = p.dir.UserPermissions(ctx, tenantID, userID, api.Identifier); err != nil {
			return nil, nil, err
		}
		if strings.HasSuffix(api.TokenDialect, "_authz") {
			permissions = held
			if permissions == nil {
				permissions = []string{}
			}
		}
	}
	for _, s := range asked {
		switch {
		case s == "offline_access":
			if client.Grants("refresh_token") && (api == nil || api.AllowOfflineAccess) {
				granted = append(granted, s)
			}
		case isOIDC(s):
			granted = append(granted, s)
		case api != nil && slices.ContainsFunc(api.Scopes, func(a tenant.Scope) bool { return a.Value == s }):
			if !api.EnforcePolicies || slices.Contains(held, s) {
				granted = append(granted, s)
			}
		}
	}
	return granted, permissions, nil
}
