// Package config is the one way in for configuration: a YAML file, decoded
// strictly, overridden by environment variables and then by flags, onto a struct
// that the appliance composes of its rooms' sections.
//
// Every fault is found in one pass and names its place (file and line, variable
// or flag), the key, what was wrong and what is allowed. It knows no key itself:
// the struct's `yaml` tags, `doc` tags and Validate methods say what there is.
package config
