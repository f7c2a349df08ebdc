// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"
)

// form is what a Value holds.
type form uint8

const (
	missing form = iota
	integer
	text
	number
	scores
	class
)

// Value is a prediction, a truth or an answer. The zero Value is a missing one. Values are small and
// are passed as such; a list of scores is shared and not modified.
type Value struct {
	form    form
	integer int64
	number  float64
	text    string
	scores  []float64
}

// Integer returns a label, or a class as the truth for scores.
func Integer(i int64) Value { return Value{form: integer, integer: i} }

// Text returns a label.
func Text(s string) Value { return Value{form: text, text: s} }

// Real returns a number, which must be finite.
func Real(x float64) Value { return Value{form: number, number: x} }

// Vector returns a list of scores, which must be finite and is shared.
func Vector(xs []float64) Value { return Value{form: scores, scores: xs} }

// TopClass returns what is left of scores when only the class of the largest is known.
func TopClass(i int) Value { return Value{form: class, integer: int64(i)} }

// Missing reports whether there is no value.
func (v Value) Missing() bool { return v.form == missing }

// Present is not Missing.
func (v Value) Present() bool { return v.form != missing }

// Same reports whether two values are the same in every part.
func (v Value) Same(w Value) bool {
	return v.Equal(w) && v.number == w.number && slices.Equal(v.scores, w.scores)
}

// Integer returns the integer label or class.
func (v Value) Integer() (int64, bool) { return v.integer, v.form == integer }

// Text returns the text label.
func (v Value) Text() (string, bool) { return v.text, v.form == text }

// Real returns the number.
func (v Value) Real() (float64, bool) { return v.number, v.form == number }

// Vector returns the scores.
func (v Value) Vector() ([]float64, bool) { return v.scores, v.form == scores }

// TopClass returns the class of a value made by the function [TopClass].
func (v Value) TopClass() (int, bool) { return int(v.integer), v.form == class }

// Class returns the index of the largest score, the first of several.
func (v Value) Class() (int, bool) {
	switch {
	case v.form == class:
		return int(v.integer), true
	case v.form != scores || len(v.scores) == 0:
		return 0, false
	}
	best := 0
	for i, x := range v.scores {
		if x > v.scores[best] {
			best = i
		}
	}
	return best, true
}

// Equal reports whether two labels are the same. An integer is never equal to a text.
func (v Value) Equal(w Value) bool {
	return v.form == w.form && v.integer == w.integer && v.text == w.text
}

// compare orders labels.
func (v Value) compare(w Value) int {
	return cmp.Or(cmp.Compare(v.form, w.form), cmp.Compare(v.integer, w.integer), cmp.Compare(v.text, w.text))
}
