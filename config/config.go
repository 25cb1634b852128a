package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// MaxFileSize bounds a configuration file, in bytes.
const MaxFileSize = 1 << 20

// Secret is a string that never shows itself: not in logs, not in `config show`.
type Secret string

// String returns a placeholder.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[redacted]"
}

// GoString returns a placeholder.
func (s Secret) GoString() string { return s.String() }

// MarshalText returns a placeholder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Reveal returns the secret itself, for the one who uses it.
func (s Secret) Reveal() string { return string(s) }

// Fault is one thing wrong with the configuration.
type Fault struct {
	Source string // "portcullis.yaml:12", "environment PORTCULLIS_DOMAIN", "flag --data"
	Key    string // "listen.https"
	Reason string // what was wrong and what is allowed
}

func (f Fault) String() string {
	parts := make([]string, 0, 3)
	for _, s := range []string{f.Source, f.Key, f.Reason} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ": ")
}

// Faults is every fault of a configuration, in the order of their sources.
type Faults []Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, x := range f {
		lines[i] = x.String()
	}
	return strings.Join(lines, "\n")
}

// Validator is a section that checks its own values. It reports each fault with
// the key relative to itself, such as "port".
type Validator interface {
	Validate(report func(key, reason string))
}

// Sources are the places that a configuration comes from, weakest first.
type Sources struct {
	File  string            // path, or "" for none
	Env   []string          // "NAME=value"; only those that begin with Prefix count
	Flags map[string]string // key -> value
}

// Prefix begins the environment variables: PORTCULLIS_LISTEN_HTTPS sets
// listen.https.
const Prefix = "PORTCULLIS_"

// foreign are variables with the prefix that are not configuration: they belong
// to the tests and to the place where the master key comes from.
var foreign = []string{"PORTCULLIS_MASTER_KEY", "PORTCULLIS_CONFIG", "PORTCULLIS_TEST_", "PORTCULLIS_E2E_"}

// Load fills dst, a pointer to a struct that holds the defaults, from the
// sources, and validates it. The error is Faults, or says that the file could
// not be read.
func Load(dst any, src Sources) error {
	l := &loader{where: map[string]string{}}
	root := reflect.ValueOf(dst).Elem()
	if src.File != "" {
		if err := l.file(root, src.File); err != nil {
			return err
		}
	}
	l.environment(root, src.Env)
	keys := make([]string, 0, len(src.Flags))
	for k := range src.Flags {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		l.assign(root, k, src.Flags[k], "flag --"+strings.ReplaceAll(k, "_", "-"))
	}
	l.validate(root, "")
	if len(l.faults) > 0 {
		return Faults(l.faults)
	}
	return nil
}

type loader struct {
	faults []Fault
	where  map[string]string // key -> source that set it last
}

func (l *loader) fault(source, key, format string, args ...any) {
	l.faults = append(l.faults, Fault{source, key, fmt.Sprintf(format, args...)})
}

func (l *loader) file(root reflect.Value, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if len(raw) > MaxFileSize {
		l.fault(path, "", "the file is larger than the %d bytes that are allowed", MaxFileSize)
		return nil
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		// The parser's own message has the line in it: "yaml: line 3: …".
		l.fault(path, "", "not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		return nil
	}
	if len(doc.Content) == 0 {
		return nil // an empty file changes nothing
	}
	l.decode(root, doc.Content[0], path, "")
	return nil
}

// decode writes a node into a value and notes every fault on the way.
func (l *loader) decode(v reflect.Value, n *yaml.Node, file, key string) {
	at := file + ":" + strconv.Itoa(n.Line)
	if n.Kind == yaml.AliasNode {
		l.fault(at, key, "aliases are not allowed; write the value out")
		return
	}
	if v.Kind() == reflect.Struct {
		if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
			return // "listen:" with nothing under it
		}
		if n.Kind != yaml.MappingNode {
			l.fault(at, key, "wants keys and values, got %s; allowed are: %s", describe(n), strings.Join(names(v.Type()), ", "))
			return
		}
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, val := n.Content[i], n.Content[i+1]
			sub := join(key, k.Value)
			kat := file + ":" + strconv.Itoa(k.Line)
			field, ok := field(v, k.Value)
			switch {
			case !ok:
				l.fault(kat, sub, "unknown key%s; allowed are: %s", suggest(k.Value, names(v.Type())), strings.Join(names(v.Type()), ", "))
			case seen[k.Value]:
				l.fault(kat, sub, "the key stands twice; allowed is once")
			default:
				l.decode(field, val, file, sub)
			}
			seen[k.Value] = true
		}
		return
	}
	l.where[key] = at
	if v.Kind() == reflect.Slice {
		if n.Kind != yaml.SequenceNode {
			l.fault(at, key, "wants a list, got %s", describe(n))
			return
		}
		out := reflect.MakeSlice(v.Type(), 0, len(n.Content))
		for i, item := range n.Content {
			e := reflect.New(v.Type().Elem()).Elem()
			l.decode(e, item, file, fmt.Sprintf("%s[%d]", key, i))
			out = reflect.Append(out, e)
		}
		v.Set(out)
		return
	}
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		l.fault(at, key, "wants %s, got %s", want(v.Type()), describe(n))
		return
	}
	if v.Kind() == reflect.String && n.Tag != "!!str" && n.Tag != "!!int" && n.Tag != "!!float" {
		l.fault(at, key, "wants a text, got %s; put it in quotes if it is meant so", describe(n))
		return
	}
	if v.Kind() != reflect.String && v.Type() != durationType && n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
		l.fault(at, key, "wants %s, got the text %q; leave the quotes out", want(v.Type()), n.Value)
		return
	}
	if reason := scan(v, n.Value); reason != "" {
		l.fault(at, key, "%s", reason)
	}
}

func (l *loader) environment(root reflect.Value, env []string) {
	keys := map[string]string{}
	for _, k := range leaves(root.Type(), "") {
		keys[EnvName(k)] = k
	}
	sorted := slices.Sorted(slices.Values(env))
	for _, kv := range sorted {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, Prefix) || slices.ContainsFunc(foreign, func(p string) bool { return strings.HasPrefix(name, p) }) {
			continue
		}
		key, ok := keys[name]
		if !ok {
			all := make([]string, 0, len(keys))
			for n := range keys {
				all = append(all, n)
			}
			l.fault("environment "+name, "", "no such setting%s; `portcullis config show` lists all keys", suggest(name, all))
			continue
		}
		l.assign(root, key, value, "environment "+name)
	}
}

// EnvName is the environment variable that sets a key.
func EnvName(key string) string {
	return Prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// assign sets a leaf from a text; lists are separated by commas.
func (l *loader) assign(root reflect.Value, key, value, source string) {
	v := root
	for _, part := range strings.Split(key, ".") {
		f, ok := field(v, part)
		if !ok {
			l.fault(source, key, "no such setting")
			return
		}
		v = f
	}
	l.where[key] = source
	if v.Kind() == reflect.Slice {
		out := reflect.MakeSlice(v.Type(), 0, 4)
		for _, s := range strings.Split(value, ",") {
			if s = strings.TrimSpace(s); s == "" {
				continue
			}
			e := reflect.New(v.Type().Elem()).Elem()
			if reason := scan(e, s); reason != "" {
				l.fault(source, key, "%s", reason)
				return
			}
			out = reflect.Append(out, e)
		}
		v.Set(out)
		return
	}
	if reason := scan(v, value); reason != "" {
		l.fault(source, key, "%s", reason)
	}
}

// validate asks every section for its faults, inner ones first. A key that could
// not be decoded has its fault already.
func (l *loader) validate(v reflect.Value, key string) {
	if v.Kind() != reflect.Struct {
		return
	}
	for i := range v.NumField() {
		if name := tag(v.Type().Field(i)); name != "" {
			l.validate(v.Field(i), join(key, name))
		}
	}
	check, ok := v.Addr().Interface().(Validator)
	if !ok {
		return
	}
	check.Validate(func(k, reason string) {
		full := join(key, k)
		if k == "" {
			full = key
		}
		for _, f := range l.faults {
			if f.Key == full {
				return
			}
		}
		source := l.where[full]
		if source == "" {
			if base, _, ok := strings.Cut(full, "["); ok {
				source = l.where[base]
			}
		}
		l.fault(source, full, "%s", reason)
	})
}

var durationType = reflect.TypeFor[time.Duration]()

// scan parses a text into a scalar and returns what is wrong with it, or "".
func scan(v reflect.Value, s string) string {
	switch {
	case v.Type() == durationType:
		d, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Sprintf("wants a duration such as 500ms, 30s or 2h, got %q", s)
		}
		v.SetInt(int64(d))
	case v.Kind() == reflect.String:
		v.SetString(s)
	case v.Kind() == reflect.Bool:
		switch s {
		case "true":
			v.SetBool(true)
		case "false":
			v.SetBool(false)
		default:
			return fmt.Sprintf("wants true or false, got %q", s)
		}
	case v.CanInt():
		n, err := strconv.ParseInt(s, 10, v.Type().Bits())
		if err != nil {
			if errors.Is(err, strconv.ErrRange) {
				return fmt.Sprintf("the number %s is out of range", s)
			}
			return fmt.Sprintf("wants a whole number, got %q", s)
		}
		v.SetInt(n)
	default:
		panic("config: a field of type " + v.Type().String() + " cannot be configured")
	}
	return ""
}

func want(t reflect.Type) string {
	switch {
	case t == durationType:
		return "a duration such as 30s"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.String:
		return "a text"
	}
	return "a whole number"
}

func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "keys and values"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "nothing"
	}
	return strconv.Quote(n.Value)
}

func tag(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	if name == "-" {
		return ""
	}
	return name
}

func names(t reflect.Type) []string {
	var out []string
	for i := range t.NumField() {
		if n := tag(t.Field(i)); n != "" {
			out = append(out, n)
		}
	}
	return out
}

func field(v reflect.Value, name string) (reflect.Value, bool) {
	if v.Kind() != reflect.Struct || name == "" {
		return reflect.Value{}, false
	}
	for i := range v.NumField() {
		if tag(v.Type().Field(i)) == name {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// leaves lists the keys of all values, in order.
func leaves(t reflect.Type, key string) []string {
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		n := tag(f)
		switch {
		case n == "":
		case f.Type.Kind() == reflect.Struct:
			out = append(out, leaves(f.Type, join(key, n))...)
		default:
			out = append(out, join(key, n))
		}
	}
	return out
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "." + b
}

// suggest names the nearest allowed word when it is near enough to be meant.
func suggest(got string, allowed []string) string {
	best, at := "", 3
	for _, a := range allowed {
		if d := distance(got, a); d < at {
			best, at = a, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := prev
			if a[i] != b[j] {
				cost = 1 + min(prev, row[j], row[j+1])
			}
			prev, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// Setting is one key with its effective value.
type Setting struct {
	Key   string `json:"key"`
	Value any    `json:"value"`
	Doc   string `json:"doc,omitempty"`
}

// Show lists all settings of a configuration struct with their values; secrets
// show as a placeholder.
func Show(src any) []Setting { return show(indirect(src), "") }

func show(v reflect.Value, key string) []Setting {
	var out []Setting
	for i := range v.NumField() {
		f := v.Type().Field(i)
		n := tag(f)
		switch {
		case n == "":
		case f.Type.Kind() == reflect.Struct:
			out = append(out, show(v.Field(i), join(key, n))...)
		default:
			val := v.Field(i).Interface()
			if d, ok := val.(time.Duration); ok {
				val = d.String()
			}
			out = append(out, Setting{join(key, n), val, f.Tag.Get("doc")})
		}
	}
	return out
}

// YAML writes a configuration struct as a file that Load reads, with secrets
// redacted and each setting's meaning above it.
func YAML(w io.Writer, src any) error { return writeYAML(w, indirect(src), "") }

func writeYAML(w io.Writer, v reflect.Value, indent string) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		n := tag(f)
		if n == "" {
			continue
		}
		if doc := f.Tag.Get("doc"); doc != "" {
			fmt.Fprintf(w, "%s# %s\n", indent, doc)
		}
		if f.Type.Kind() == reflect.Struct {
			fmt.Fprintf(w, "%s%s:\n", indent, n)
			if err := writeYAML(w, v.Field(i), indent+"  "); err != nil {
				return err
			}
			continue
		}
		val := v.Field(i).Interface()
		if d, ok := val.(time.Duration); ok {
			val = d.String()
		}
		if v.Field(i).Kind() == reflect.Slice && v.Field(i).Len() == 0 {
			val = []string{}
		}
		raw, err := yaml.Marshal(val)
		if err != nil {
			return err
		}
		text := strings.TrimRight(string(raw), "\n")
		if v.Field(i).Kind() == reflect.Slice && v.Field(i).Len() > 0 {
			text = "\n" + indent + "  " + strings.ReplaceAll(text, "\n", "\n"+indent+"  ")
		} else {
			text = " " + text
		}
		if _, err := fmt.Fprintf(w, "%s%s:%s\n", indent, n, text); err != nil {
			return err
		}
	}
	return nil
}
