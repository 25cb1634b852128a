package upstream

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/oauth2"

	"github.com/portcullis-id/portcullis/authn"
	"github.com/portcullis-id/portcullis/problem"
)

const codeUntrusted = "upstream_untrusted"

func untrusted(err error) error {
	return problem.Wrap(problem.Forbidden, codeUntrusted, err, "The answer of the other provider could not be verified, so nobody was logged in")
}

var guid = regexp.MustCompile(`^[0-9a-fA-F-]{36}$`)

// idTokenProfile verifies the ID token (OpenID Connect Core section 3.1.3.7) and
// reads the profile of it, and of userinfo where the token has no address.
func (s *Service) idTokenProfile(ctx context.Context, token *oauth2.Token, p *provider, o options, nonce string) (authn.Profile, error) {
	raw, _ := token.Extra("id_token").(string)
	if raw == "" {
		return authn.Profile{}, untrusted(errors.New("the token response has no ID token"))
	}
	id, err := p.verifier.Verify(s.ctx(ctx), raw)
	if err != nil {
		return authn.Profile{}, untrusted(err)
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(nonce)) != 1 {
		return authn.Profile{}, untrusted(errors.New("the nonce is another one"))
	}
	var payload json.RawMessage
	if err := id.Claims(&payload); err != nil {
		return authn.Profile{}, untrusted(err)
	}
	var claims map[string]any
	if err := decode(bytes.NewReader(payload), &claims); err != nil {
		return authn.Profile{}, untrusted(err)
	}
	if p.Issuer == microsoftTemplate {
		tid, _ := claims["tid"].(string)
		if !guid.MatchString(tid) || id.Issuer != strings.Replace(microsoftTemplate, "{tenantid}", tid, 1) {
			return authn.Profile{}, untrusted(fmt.Errorf("the issuer is %q", id.Issuer))
		}
	}
	if azp, ok := claims["azp"].(string); ok && azp != o.ClientID {
		return authn.Profile{}, untrusted(errors.New("azp names another client"))
	}
	if claims["email"] == nil && p.UserinfoURL != "" {
		var more map[string]any
		if err := s.getJSON(ctx, p.UserinfoURL, token.AccessToken, &more); err != nil {
			return authn.Profile{}, unreachable(fmt.Errorf("userinfo: %w", err))
		}
		// Core section 5.3.2: an answer about somebody else must not be used.
		if sub, ok := more["sub"].(string); !ok || sub != id.Subject {
			return authn.Profile{}, untrusted(errors.New("userinfo speaks of another subject"))
		}
		for k, v := range more {
			if _, ok := claims[k]; !ok {
				claims[k] = v
			}
		}
	}
	out := standard(claims, o.ProfileMap)
	if o.ProfileMap["user_id"] == "" {
		// Core section 5.7: sub alone identifies a user. A claim of another name may be
		// one that users can set.
		out.Subject = subjectOf(id.Subject)
	}
	if out.Subject == "" {
		return authn.Profile{}, untrusted(errors.New("the ID token has no subject that can be used"))
	}
	return out, nil
}

// subjectOf is an id as it can be kept, or "": up to 255 characters (Core section
// 2), none of which controls anything.
func subjectOf(s string) string {
	if s != clean(s) || len(s) > 255 || strings.TrimSpace(s) != s {
		return ""
	}
	return s
}

// clean takes out what no text of a profile needs.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}

// userinfoProfile reads the profile of a plain OAuth 2 provider.
func userinfoProfile(ctx context.Context, s *Service, token *oauth2.Token, p *provider, o options) (authn.Profile, error) {
	var claims map[string]any
	if err := s.getJSON(ctx, p.UserinfoURL, token.AccessToken, &claims); err != nil {
		return authn.Profile{}, unreachable(fmt.Errorf("userinfo: %w", err))
	}
	out := standard(claims, o.ProfileMap)
	if out.Subject == "" {
		return out, untrusted(errors.New("userinfo has no id that can be used; set profile_map.user_id"))
	}
	return out, nil
}

// standard reads the standard claims (Core section 5.1), or those that a
// connection maps.
func standard(claims map[string]any, mapped map[string]string) authn.Profile {
	get := func(name string, others ...string) any {
		if path, ok := mapped[name]; ok {
			return dig(claims, path)
		}
		for _, n := range append([]string{name}, others...) {
			if v := claims[n]; v != nil {
				return v
			}
		}
		return nil
	}
	str := func(v any) string {
		switch v := v.(type) {
		case string:
			return v
		case json.Number:
			// As it was written: as a float, two long ids may be one.
			if _, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
				return v.String()
			}
		}
		return ""
	}
	text := func(v any) string { return clean(str(v)) }
	verified := get("email_verified")
	return authn.Profile{
		Subject: subjectOf(str(get("user_id", "sub", "id"))), Email: text(get("email")), EmailVerified: verified == true || verified == "true",
		Name: text(get("name")), Nickname: text(get("nickname")), GivenName: text(get("given_name")), FamilyName: text(get("family_name")),
		Picture: text(get("picture")), Locale: text(get("locale")), Username: text(get("username", "preferred_username")), Raw: claims,
	}
}

func dig(v any, path string) any {
	for _, part := range strings.Split(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[part]
	}
	return v
}

// githubProfile asks GitHub's API: the primary address counts as verified only if
// GitHub says so.
func githubProfile(ctx context.Context, s *Service, token *oauth2.Token, _ *provider, _ options) (authn.Profile, error) {
	var u struct {
		ID     int64  `json:"id"`
		Login  string `json:"login"`
		Name   string `json:"name"`
		Avatar string `json:"avatar_url"`
	}
	if err := s.getJSON(ctx, "https://api.github.com/user", token.AccessToken, &u); err != nil {
		return authn.Profile{}, unreachable(fmt.Errorf("user: %w", err))
	}
	if u.ID == 0 {
		return authn.Profile{}, untrusted(errors.New("the user has no id"))
	}
	out := authn.Profile{Subject: strconv.FormatInt(u.ID, 10), Nickname: u.Login, Name: u.Name, Picture: u.Avatar}
	var emails []struct {
		Email    string `json:"email"`
		Primary  bool   `json:"primary"`
		Verified bool   `json:"verified"`
	}
	if err := s.getJSON(ctx, "https://api.github.com/user/emails", token.AccessToken, &emails); err != nil {
		return authn.Profile{}, unreachable(fmt.Errorf("addresses: %w", err))
	}
	for _, e := range emails {
		if e.Primary {
			out.Email, out.EmailVerified = e.Email, e.Verified
		}
	}
	return out, nil
}
