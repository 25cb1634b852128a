package page

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"encoding/json"

	"github.com/nicksnyder/go-i18n/v2/i18n"
	"golang.org/x/text/language"
)

type translator func(id string, args ...any) string

// texts are the catalogues. English comes first and is complete: it steps in for
// what another language lacks.
type texts struct {
	tags []language.Tag
	by   map[language.Tag]*i18n.Localizer
}

func readTexts() (*texts, error) {
	bundle := i18n.NewBundle(language.English)
	bundle.RegisterUnmarshalFunc("json", json.Unmarshal)
	names, err := fs.Glob(files, "locales/*.json")
	if err != nil {
		return nil, err
	}
	t := &texts{tags: []language.Tag{language.English}, by: map[language.Tag]*i18n.Localizer{}}
	for _, name := range names {
		f, err := bundle.LoadMessageFileFS(files, name)
		if err != nil {
			return nil, fmt.Errorf("read texts %s: %w", path.Base(name), err)
		}
		if !slices.Contains(t.tags, f.Tag) {
			t.tags = append(t.tags, f.Tag)
		}
	}
	for _, tag := range t.tags {
		t.by[tag] = i18n.NewLocalizer(bundle, tag.String())
	}
	return t, nil
}

// choose picks the language of a page.
func (t *texts) choose(wanted, accept, enabled []string) (string, translator) {
	offered := t.tags
	if len(enabled) > 0 {
		if within := t.offered(enabled); len(within) > 0 {
			offered = within
		}
	}
	tag := offered[0]
	asked := make([]language.Tag, 0, 8)
	for _, w := range wanted {
		if parsed, err := language.Parse(w); err == nil {
			asked = append(asked, parsed)
		}
	}
	for _, one := range [][]language.Tag{asked, acceptable(accept)} {
		if len(one) == 0 {
			continue
		}
		if _, i, confidence := language.NewMatcher(offered).Match(one...); confidence != language.No {
			tag = offered[i]
			break
		}
	}
	return tag.String(), t.translator(tag)
}

func (t *texts) offered(enabled []string) []language.Tag {
	matcher := language.NewMatcher(t.tags)
	var out []language.Tag
	for _, e := range enabled {
		parsed, err := language.Parse(e)
		if err != nil {
			continue
		}
		if _, i, confidence := matcher.Match(parsed); confidence >= language.High && !slices.Contains(out, t.tags[i]) {
			out = append(out, t.tags[i])
		}
	}
	return out
}

// acceptable reads Accept-Language headers (RFC 9110 section 12.5.4), bounded.
func acceptable(headers []string) []language.Tag {
	joined := strings.Join(headers, ",")
	if len(joined) > 512 {
		joined = joined[:512]
	}
	tags, _, err := language.ParseAcceptLanguage(joined)
	if err != nil {
		return nil
	}
	return tags
}

func (t *texts) translator(tag language.Tag) translator {
	l := t.by[tag]
	return func(id string, args ...any) string {
		cfg := &i18n.LocalizeConfig{MessageID: id}
		if len(args) > 0 {
			data := make(map[string]any, len(args)/2)
			for i := 0; i+1 < len(args); i += 2 {
				name, _ := args[i].(string)
				data[name] = args[i+1]
				if name == "Count" {
					cfg.PluralCount = args[i+1]
				}
			}
			cfg.TemplateData = data
		}
		// An error with a text is a language that lacks it, where English stepped in.
		s, err := l.Localize(cfg)
		if s == "" && err != nil {
			return id
		}
		return s
	}
}
