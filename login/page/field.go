package page

import "strings"

// Field is one input with its label, hint and fault. The template "field" shows
// it.
type Field struct {
	Name         string // also the id
	Label        string
	Type         string // email, text, password
	Value        string // never filled in for a password
	Autocomplete string // WCAG 2.2 criterion 1.3.5
	InputMode    string
	Hint         string
	Rules        []string // what the value has to be, shown as a list
	Error        string
	Optional     bool
	Autofocus    bool
	ReadOnly     bool
	MaxLength    int // characters; 0 means 320
	Options      []Option
	Aside        *Link
}

// Option is one choice of a field.
type Option struct {
	Value, Label, Hint string
	Chosen             bool
}

// Link is a text that leads somewhere.
type Link struct{ Href, Text string }

// Describers are the ids of what describes the input, for aria-describedby.
func (f Field) Describers() string {
	var ids []string
	if f.Error != "" {
		ids = append(ids, f.Name+"-error")
	}
	if f.Hint != "" || len(f.Rules) > 0 {
		ids = append(ids, f.Name+"-hint")
	}
	return strings.Join(ids, " ")
}

// Max is the most characters that the input takes.
func (f Field) Max() int {
	if f.MaxLength > 0 {
		return f.MaxLength
	}
	return 320
}
