package mgmt

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/text/language"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

var settingsFields = declare(`change_password:?object device_flow:?object guardian_mfa_page:?object default_audience:?string default_directory:?string
error_page:?object default_token_quota:?object flags:?object friendly_name:?string picture_url:?string support_email:?string support_url:?string
allowed_logout_urls:?strings session_lifetime:?number idle_session_lifetime:?number ephemeral_session_lifetime:?number idle_ephemeral_session_lifetime:?number
sandbox_version:?string legacy_sandbox_version:?string default_redirection_uri:?string enabled_locales:?strings session_cookie:?object sessions:?object
oidc_logout:?object customize_mfa_in_postlogin_action:?boolean allow_organization_name_in_authentication_api:?boolean acr_values_supported:?strings mtls:?object
pushed_authorization_requests_supported:?boolean authorization_response_iss_parameter_supported:?boolean skip_non_verifiable_callback_uri_confirmation_prompt:?boolean
resource_parameter_profile:?string enable_ai_guide:?boolean phone_consolidated_experience:?boolean client_id_metadata_document_supported:?boolean
dynamic_client_registration_security_mode:?string country_codes:?object universal_login:?object signing_alg:?string sandbox_versions_available:?strings
include_session_metadata_in_tenant_logs:?boolean`)

// defaultSettings are those of a new tenant.
func defaultSettings(name string) doc {
	return doc{
		"friendly_name": name, "picture_url": "", "support_email": "", "support_url": "", "allowed_logout_urls": []any{}, "acr_values_supported": []any{},
		"default_audience": "", "default_directory": "", "enabled_locales": []any{"en"}, "sandbox_version": "22", "sandbox_versions_available": []any{"22", "18", "12"},
		"session_lifetime": 168, "idle_session_lifetime": 72, "ephemeral_session_lifetime": 72, "idle_ephemeral_session_lifetime": 24,
		"session_cookie": doc{"mode": "persistent"}, "oidc_logout": doc{"rp_logout_end_session_endpoint_discovery": true},
		"sessions":        doc{"oidc_logout_prompt_enabled": true},
		"change_password": doc{"enabled": false, "html": ""}, "guardian_mfa_page": doc{"enabled": false, "html": ""},
		"allow_organization_name_in_authentication_api": false, "customize_mfa_in_postlogin_action": false, "pushed_authorization_requests_supported": false,
		"mtls": doc{"enable_endpoint_aliases": false}, "phone_consolidated_experience": false,
		"universal_login":            doc{"colors": doc{"primary": "#1f4fbf", "page_background": "#eef1f5"}, "is_custom_theme_set": false, "is_custom_template_set": false},
		"resource_parameter_profile": "audience", "client_id_metadata_document_supported": false, "dynamic_client_registration_security_mode": "strict",
		"flags": doc{
			"allow_changing_enable_sso": false, "cannot_change_enforce_client_authentication_on_passwordless_start": true, "disable_impersonation": true,
			"disable_clickjack_protection_headers": false, "enable_public_signup_user_exists_error": false, "enable_sso": true,
			"enforce_client_authentication_on_passwordless_start": true, "universal_login": true, "use_scope_descriptions_for_consent": false,
			"no_disclose_enterprise_connections": false, "revoke_refresh_token_grant": false, "disable_fields_map_fix": false,
			"disable_management_api_sms_obfuscation": false, "mfa_show_factor_list_on_enrollment": false, "require_signed_request_object": false,
			"new_universal_login_experience_enabled": true, "enable_dynamic_client_registration": false, "remove_alg_from_jwks": false,
			// What follows was taken away from the protocols; the flags stay for tools that
			// read them.
			"allow_legacy_delegation_grant_types": false, "allow_legacy_ro_grant_types": false, "allow_other_legacy_grant_types": false,
			"allow_legacy_tokeninfo_endpoint": false, "enable_adfs_waad_email_verification": false, "enable_apis_section": true,
			"enable_client_connections": true, "enable_custom_domain_in_emails": false, "enable_idtoken_api2": false, "enable_legacy_logs_search_v2": false,
			"enable_legacy_profile": false, "dashboard_log_streams_next": false, "dashboard_new_onboarding": false, "enable_pipeline2": false,
		},
		"signing_alg": "RS256",
	}
}

func (a *API) registerSettings(mux *http.ServeMux) {
	a.handle(mux, "GET tenants/settings", []string{"read:tenant_settings"}, a.getSettings)
	a.handle(mux, "PATCH tenants/settings", []string{"update:tenant_settings"}, a.patchSettings)
}

func (a *API) getSettings(c *call) (int, any, error) {
	cut, err := fieldsOf(c.URL.Query())
	if err != nil {
		return 0, nil, err
	}
	rec, err := a.docs.Get(c.ctx(), c.tenant, tenant.KindSettings, tenant.SettingsID)
	if err != nil {
		return 0, nil, err
	}
	d, err := asDoc(rec.Doc)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, cut(d), nil
}

func (a *API) patchSettings(c *call) (int, any, error) {
	patch, err := c.object()
	if err != nil {
		return 0, nil, err
	}
	delete(patch, "sandbox_versions_available")
	if err := settingsFields.check(patch); err != nil {
		return 0, nil, err
	}
	if err := a.judgeSettings(c, patch); err != nil {
		return 0, nil, err
	}
	var out *doc
	err = a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) (err error) {
		out, err = tenant.Change(tx, tenant.KindSettings, tenant.SettingsID, func(d *doc) error {
			merged := mergeSettings(*d, patch)
			*d = merged
			return nil
		})
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, *out, nil
}

// mergeSettings replaces properties, puts flags together, and keeps null where it
// is a value of its own.
func mergeSettings(old, patch doc) doc {
	out := doc{}
	for k, v := range old {
		out[k] = v
	}
	for k, v := range patch {
		before, ok1 := old[k].(doc)
		after, ok2 := v.(doc)
		switch {
		case ok1 && ok2 && slices.Contains([]string{"flags", "session_cookie", "sessions", "oidc_logout", "mtls", "change_password", "guardian_mfa_page", "error_page", "universal_login"}, k):
			out[k] = shallow(before, after)
		default:
			out[k] = v
		}
	}
	return out
}

func (a *API) judgeSettings(c *call, d doc) error {
	for _, err := range []error{
		within(d, "session_lifetime", 0.0166, 8760), within(d, "idle_session_lifetime", 0.0166, 8760),
		within(d, "ephemeral_session_lifetime", 0.0166, 8760), within(d, "idle_ephemeral_session_lifetime", 0.0166, 8760),
		within(d, "friendly_name", 0, 255), checkURLs(d, "allowed_logout_urls", true),
		oneOf(d, "signing_alg", tenant.Algorithms...), oneOf(d, "resource_parameter_profile", "audience", "compatibility"),
	} {
		if err != nil {
			return err
		}
	}
	if m, ok := d["session_cookie"].(doc); ok {
		if err := oneOf(m, "mode", "persistent", "non-persistent"); err != nil {
			return err
		}
	}
	if flags, ok := d["flags"].(doc); ok {
		for k, v := range flags {
			if kindOf(v) != "boolean" {
				return invalidBody("'Expected type boolean but found type %s' on property flags.%s.", kindOf(v), clip(k, 64))
			}
		}
	}
	list, _ := d["enabled_locales"].([]any)
	for _, v := range list {
		s, _ := v.(string)
		if _, err := language.Parse(s); err != nil {
			return invalidBody("'%s is no language tag' on property enabled_locales.", clip(s, 32))
		}
	}
	if s := text(d, "default_audience"); s != "" {
		if _, err := a.Directory.ResourceServer(c.ctx(), c.tenant, s); problem.Is(err, problem.NotFound) {
			return problem.New(problem.Invalid, "invalid_body", "default_audience: there is no API with the identifier %s", clip(s, 128))
		} else if err != nil {
			return err
		}
	}
	if s := text(d, "default_directory"); s != "" {
		if _, err := a.Directory.Connection(c.ctx(), c.tenant, s); problem.Is(err, problem.NotFound) {
			return problem.New(problem.Invalid, "invalid_body", "default_directory: there is no connection with the name %s", clip(s, 128))
		} else if err != nil {
			return err
		}
	}
	for _, name := range []string{"picture_url", "support_url", "default_redirection_uri"} {
		if s := text(d, name); s != "" && !strings.HasPrefix(s, "https://") && !strings.HasPrefix(s, "http://") {
			return invalidBody("'%s wants a URL' on property %s.", fmt.Sprintf("%q", clip(s, 64)), name)
		}
	}
	return nil
}
