package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

//go:embed templates assets locales
var files embed.FS

// AssetPath is where the stylesheet and the icon are served.
const AssetPath = "/u/assets/"

// Product is the name that pages bear when no tenant has given another.
const Product = "Portcullis"

// Kit holds what all pages are made of. It is safe for concurrent use.
type Kit struct {
	layout *template.Template
	assets map[string]asset // by file name, which holds the hash of the content
	style  string
	icon   string
	texts  *texts
	guard  *http.CrossOriginProtection
}

type asset struct {
	contentType string
	content     []byte
}

// NewKit reads the embedded templates, assets and catalogues.
func NewKit() (*Kit, error) {
	k := &Kit{assets: map[string]asset{}, guard: http.NewCrossOriginProtection()}
	var err error
	if k.layout, err = template.ParseFS(files, "templates/*.html"); err != nil {
		return nil, fmt.Errorf("read page templates: %w", err)
	}
	if k.style, err = k.asset("style.css", "text/css; charset=utf-8"); err != nil {
		return nil, err
	}
	if k.icon, err = k.asset("icon.svg", "image/svg+xml"); err != nil {
		return nil, err
	}
	if k.texts, err = readTexts(); err != nil {
		return nil, err
	}
	return k, nil
}

func (k *Kit) asset(name, contentType string) (string, error) {
	content, err := files.ReadFile("assets/" + name)
	if err != nil {
		return "", fmt.Errorf("read page assets: %w", err)
	}
	sum := sha256.Sum256(content)
	base, ext, _ := strings.Cut(name, ".")
	hashed := base + "-" + hex.EncodeToString(sum[:6]) + "." + ext
	k.assets[hashed] = asset{contentType, content}
	return AssetPath + hashed, nil
}

// Parse reads pages. Each file of fsys that matches pattern is one page, which
// defines the block "main"; the result maps file names to them.
func (k *Kit) Parse(fsys fs.FS, pattern string) (map[string]*template.Template, error) {
	names, err := fs.Glob(fsys, pattern)
	if err != nil {
		return nil, err
	}
	pages := make(map[string]*template.Template, len(names))
	for _, name := range names {
		base, err := k.layout.Clone()
		if err != nil {
			return nil, err
		}
		if base, err = base.ParseFS(fsys, name); err != nil {
			return nil, fmt.Errorf("read page %s: %w", name, err)
		}
		pages[name[strings.LastIndex(name, "/")+1:]] = base
	}
	return pages, nil
}

// ServeAsset answers below AssetPath. A file is named for its content, so it may
// be kept forever; the name of an older or newer node's file leads to the
// present one, unkept, as pages of both are open while nodes are updated.
func (k *Kit) ServeAsset(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, AssetPath)
	keep := "public, max-age=31536000, immutable"
	a, ok := k.assets[name]
	if !ok {
		keep = "no-store"
		switch {
		case strings.HasPrefix(name, "style-") && strings.HasSuffix(name, ".css"):
			a = k.assets[strings.TrimPrefix(k.style, AssetPath)]
		case strings.HasPrefix(name, "icon-") && strings.HasSuffix(name, ".svg"):
			a = k.assets[strings.TrimPrefix(k.icon, AssetPath)]
		default:
			http.NotFound(w, r)
			return
		}
	}
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Set("Cache-Control", keep)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	w.Write(a.content)
}

// Brand is whose page it is.
type Brand struct {
	Name        string // what people know the tenant by
	Logo        string // https URL of an image, or empty
	SupportURL  string // https URL or empty
	SupportMail string
}

// Initial is shown where there is no logo.
func (b Brand) Initial() string {
	for _, r := range b.Name {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return string(unicode.ToUpper(r))
		}
	}
	return "P"
}

// LogoURL is a URL that may stand as a logo: https with a plain host, or empty.
func LogoURL(candidates ...string) string {
	for _, c := range candidates {
		if u, err := url.Parse(c); err == nil && len(c) <= 2048 && u.Scheme == "https" && u.User == nil && plainHost(u.Host) {
			return c
		}
	}
	return ""
}

// plainHost accepts what may stand in a Content-Security-Policy as it is.
func plainHost(host string) bool {
	if host == "" {
		return false
	}
	for _, r := range host {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".-:", r) {
			return false
		}
	}
	return true
}

// FormTargets says where the forms of a page may lead, redirects included.
type FormTargets string

// The targets. Browsers (Chromium since 2016, by the words of CSP 3) apply
// form-action to the whole chain of redirects after a POST. A login ends at the
// application, whose callback may send the browser anywhere else, custom schemes
// included, so for such pages no list can be right and the directive is left
// out: OntoApplication. What it would guard against, a form planted in the page,
// takes markup that html/template does not let through.
const (
	NoForms         FormTargets = "form-action 'none'"
	OwnForms        FormTargets = "form-action 'self'"
	OntoApplication FormTargets = ""
)

// View is what the layout shows; the data of every page embeds a *View.
type View struct {
	Lang  string // BCP 47
	Title string // of the window, without the brand
	Brand Brand
	Forms FormTargets
	Wide  bool // for pages with more to read than a form
	Token string

	kit  *Kit
	text translator
}

// Style is the path of the stylesheet.
func (v *View) Style() string { return v.kit.style }

// Icon is the path of the icon.
func (v *View) Icon() string { return v.kit.icon }

// T is a text in the language of the page. args are pairs of a placeholder's name
// and its value; "Count" chooses the plural form.
func (v *View) T(id string, args ...any) string { return v.text(id, args...) }

// NewView makes a view in the first language that fits: of wanted, then of the
// Accept-Language header, both within enabled; then the first enabled one, then
// English. An empty enabled means all that there are.
func (k *Kit) NewView(r *http.Request, b Brand, wanted, enabled []string) *View {
	lang, text := k.texts.choose(wanted, r.Header.Values("Accept-Language"), enabled)
	if b.Name == "" {
		b.Name = Product
	}
	return &View{Lang: lang, Brand: b, Forms: NoForms, kit: k, text: text}
}

// Render writes a page. data embeds v. Nothing is written when the template
// fails.
func (k *Kit) Render(w http.ResponseWriter, status int, t *template.Template, v *View, data any) error {
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, "layout", data); err != nil {
		return fmt.Errorf("render page: %w", err)
	}
	Headers(w.Header(), v)
	w.WriteHeader(status)
	_, err := w.Write(b.Bytes())
	return err
}

// Headers sets what every page is sent with.
func Headers(h http.Header, v *View) {
	csp := []string{"default-src 'none'", "style-src 'self'"}
	img := "img-src 'self'"
	if u, err := url.Parse(v.Brand.Logo); err == nil && u.Host != "" {
		img += " https://" + u.Host
	}
	csp = append(csp, img, "frame-ancestors 'none'", "base-uri 'none'")
	if v.Forms != OntoApplication {
		csp = append(csp, string(v.Forms))
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", v.Lang)
	h.Set("Content-Security-Policy", strings.Join(csp, "; "))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY") // for browsers without frame-ancestors
	// Pages have tickets in their URLs, which no other site may learn. "no-referrer"
	// would hide more than that: it turns the Origin header of our own forms into
	// "null", by which browsers without Sec-Fetch-Site are told from strangers.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Strict-Transport-Security", "max-age=31536000")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	h.Set("Cross-Origin-Opener-Policy", "unsafe-none") // popups of SDKs read their result from the opener
	h.Set("Cache-Control", "no-store")
}

// Clip bounds a text that a stranger sent to n characters before it is shown.
func Clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "")
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n]) + "…"
}
