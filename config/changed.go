package config

import (
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

var secretType = reflect.TypeFor[Secret]()

// Changed lists the settings in which a configuration differs from base, a
// configuration of the same type, as the texts that Sources.Flags takes. Secrets
// stand in the clear.
func Changed(src, base any) map[string]string {
	out := map[string]string{}
	eachChanged(src, base, func(key string, v reflect.Value) { out[key] = text(v) })
	return out
}

// WriteChanged writes the settings in which a configuration differs from base as a
// file that Load reads. Secrets stand in the clear: the file is for its owner alone.
func WriteChanged(w io.Writer, src, base any) error {
	tree := map[string]any{}
	eachChanged(src, base, func(key string, v reflect.Value) {
		at := tree
		path := strings.Split(key, ".")
		for _, p := range path[:len(path)-1] {
			if at[p] == nil {
				at[p] = map[string]any{}
			}
			at = at[p].(map[string]any)
		}
		val := v.Interface()
		switch val := val.(type) {
		case time.Duration:
			at[path[len(path)-1]] = val.String()
		case Secret:
			at[path[len(path)-1]] = val.Reveal()
		default:
			at[path[len(path)-1]] = val
		}
	})
	raw, err := yaml.Marshal(tree)
	if err != nil {
		return err
	}
	_, err = w.Write(raw)
	return err
}

// SecretKeys lists the settings that are secrets.
func SecretKeys(src any) []string {
	var out []string
	each(indirect(src), "", func(key string, v reflect.Value) {
		if v.Type() == secretType {
			out = append(out, key)
		}
	})
	return out
}

func eachChanged(src, base any, do func(key string, v reflect.Value)) {
	before := map[string]reflect.Value{}
	each(indirect(base), "", func(key string, v reflect.Value) { before[key] = v })
	each(indirect(src), "", func(key string, v reflect.Value) {
		b := before[key]
		same := reflect.DeepEqual(v.Interface(), b.Interface()) || v.Kind() == reflect.Slice && v.Len() == 0 && b.Len() == 0
		if !same {
			do(key, v)
		}
	})
}

func indirect(src any) reflect.Value {
	v := reflect.ValueOf(src)
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	return v
}

// each visits the settings below a struct.
func each(v reflect.Value, key string, do func(key string, v reflect.Value)) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		n := tag(f)
		switch {
		case n == "":
		case f.Type.Kind() == reflect.Struct:
			each(v.Field(i), join(key, n), do)
		default:
			do(join(key, n), v.Field(i))
		}
	}
}

// text is a value as Load reads it from the environment or a flag.
func text(v reflect.Value) string {
	if s, ok := v.Interface().(Secret); ok {
		return s.Reveal()
	}
	if v.Kind() != reflect.Slice {
		return fmt.Sprint(v.Interface())
	}
	var all []string
	for i := range v.Len() {
		all = append(all, text(v.Index(i)))
	}
	return strings.Join(all, ",")
}
