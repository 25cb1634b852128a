package password

import (
	"context"
	_ "embed"
	"errors"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

//go:embed common.txt
var commonText string

// common are passwords that everybody tries first.
var common = sync.OnceValue(func() map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(commonText) {
		m[w] = true
	}
	return m
})

// Why a policy refuses a password: the causes of errors with code
// "invalid_password", for surfaces that have their own words for them.
var (
	ErrShort      = errors.New("too short")
	ErrWeak       = errors.New("too few kinds of characters, or repeated ones")
	ErrCommon     = errors.New("too common")
	ErrPersonal   = errors.New("tells of the user")
	ErrUsed       = errors.New("used before")
	ErrCharacters = errors.New("unusable characters")
)

// Policy judges new passwords of a connection.
type Policy struct{ opts tenant.DatabaseOptions }

// NewPolicy reads a connection's options.
func NewPolicy(o tenant.DatabaseOptions) Policy { return Policy{o} }

// MinLength is the least number of characters.
func (p Policy) MinLength() int {
	if n := p.opts.PasswordComplexity.MinLength; n > 0 {
		return min(n, 128)
	}
	switch p.opts.PasswordPolicy {
	case "none":
		return 1
	case "low":
		return 6
	}
	return 8
}

// classes is how many of lower case, upper case, digits and others a password
// wants, and whether three of four are enough.
func (p Policy) classes() (want int, of string) {
	switch p.opts.PasswordPolicy {
	case "fair":
		return 3, "lower-case letters, upper-case letters and digits"
	case "good", "excellent":
		return 3, "lower-case letters, upper-case letters, digits and special characters"
	}
	return 0, ""
}

// Rules says in plain words what a password has to be.
func (p Policy) Rules() []string {
	rules := []string{atLeast(p.MinLength())}
	switch p.opts.PasswordPolicy {
	case "fair":
		rules = append(rules, "Lower-case letters, upper-case letters and digits")
	case "good", "excellent":
		rules = append(rules, "At least three of: lower-case letters, upper-case letters, digits, special characters")
	}
	if p.opts.PasswordPolicy == "excellent" {
		rules = append(rules, "No more than two equal characters in a row")
	}
	return rules
}

func atLeast(n int) string {
	if n == 1 {
		return "At least 1 character"
	}
	return "At least " + strconv.Itoa(n) + " characters"
}

// Check judges a new password of a user. It fails with problem.Invalid and code
// "invalid_password"; the message says what to do.
func (p Policy) Check(plain string, u *tenant.User) error {
	bad := func(why error, message string) error {
		return problem.Wrap(problem.Invalid, "invalid_password", why, "%s", message)
	}
	n := utf8.RuneCountInString(plain)
	switch {
	case len(plain) > MaxLength:
		return tooLong()
	case !utf8.ValidString(plain) || strings.ContainsRune(plain, 0):
		return bad(ErrCharacters, "The password has characters that cannot be used")
	case n < p.MinLength():
		return bad(ErrShort, "The password is too short. "+atLeast(p.MinLength()))
	}
	if want, of := p.classes(); want > 0 && countClasses(plain, p.opts.PasswordPolicy == "fair") < want {
		return bad(ErrWeak, "The password is too weak. Use "+of)
	}
	if p.opts.PasswordPolicy == "excellent" && repeats(plain) {
		return bad(ErrWeak, "The password is too weak. No more than two equal characters in a row")
	}
	lower := strings.ToLower(plain)
	if p.opts.PasswordPolicy != "none" && common()[lower] {
		return bad(ErrCommon, "The password is too common")
	}
	if d := p.opts.PasswordDictionary; d.Enable {
		for _, w := range d.Dictionary {
			if strings.EqualFold(w, plain) {
				return bad(ErrCommon, "The password is too common")
			}
		}
	}
	if p.opts.NoPersonalInfo.Enable && u != nil {
		local, _, _ := strings.Cut(u.Email, "@")
		for _, part := range []string{local, u.Username, u.Name, u.Nickname, u.GivenName, u.FamilyName} {
			if len(part) >= 3 && strings.Contains(lower, strings.ToLower(part)) {
				return bad(ErrPersonal, "The password contains information about the user")
			}
		}
	}
	return nil
}

func countClasses(s string, threeOnly bool) int {
	var lower, upper, digit, other int
	for _, r := range s {
		switch {
		case unicode.IsLower(r):
			lower = 1
		case unicode.IsUpper(r):
			upper = 1
		case unicode.IsDigit(r):
			digit = 1
		default:
			other = 1
		}
	}
	if threeOnly {
		return lower + upper + digit
	}
	return lower + upper + digit + other
}

func repeats(s string) bool {
	var last rune
	run := 0
	for _, r := range s {
		if r == last {
			run++
		} else {
			last, run = r, 1
		}
		if run > 2 {
			return true
		}
	}
	return false
}

// CheckHistory fails when a password is the present one or one of the former
// ones that the connection remembers. Hashes are those of tenant.PasswordHash.
func (p Policy) CheckHistory(ctx context.Context, h *Hasher, plain, present string, former []string) error {
	if !p.opts.PasswordHistory.Enable {
		return nil
	}
	size := p.opts.PasswordHistory.Size
	if size <= 0 {
		size = 5
	}
	all := append([]string{present}, former...)
	for _, hash := range all[:min(len(all), size)] {
		if hash == "" {
			continue
		}
		ok, _, err := h.Verify(ctx, hash, plain)
		if err != nil {
			return err
		}
		if ok {
			return problem.Wrap(problem.Invalid, "invalid_password", ErrUsed, "The password has been used before")
		}
	}
	return nil
}
