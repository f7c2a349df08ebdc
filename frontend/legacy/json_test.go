// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	v, err := parse([]byte(" {\"a\": [1, -2.5e1, \"\\ud83d\\ude00\\n\\\"\"], \"b\": {\"c\": null, \"d\": true}, \"e\": false, \"a\": 7}\n"))
	require.NoError(t, err)
	a, ok := v.get("a")
	require.True(t, ok)
	require.Equal(t, kindArray, a.kind)
	require.Equal(t, value{kind: kindNumber, whole: true, number: 1}, a.items()[0].value)
	require.Equal(t, value{kind: kindNumber, number: -25}, a.items()[1].value)
	require.Equal(t, value{kind: kindString, text: "😀\n\""}, a.items()[2].value)
	_, ok = a.get("a")
	require.False(t, ok)
	_, ok = v.get("x")
	require.False(t, ok)
}

func TestParse_errors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     errEmpty + "@0",
		" \n":                                  errEmpty + "@2",
		"1 2":                                  errRoot + "@2",
		"x":                                    errValue + "@0",
		"nul":                                  errValue + "@3",
		"-":                                    errValue + "@1",
		"[01]":                                 errElement + "@2",
		"[1,]":                                 errValue + "@3",
		"{1:2}":                                errName + "@1",
		`{"a" 1}`:                              errColon + "@5",
		`{"a":1 "b"`:                           errMember + "@7",
		`{"a":1,}`:                             errName + "@7",
		"[1 2]":                                errElement + "@3",
		`"\u12g4"`:                             errHex + "@1",
		`"\u12`:                                errHex + "@1",
		`"\ud800x"`:                            errSurrogate + "@1",
		`"\udc00"`:                             errSurrogate + "@1",
		`"\ud800\u0041"`:                       errSurrogate + "@1",
		`"ab\x"`:                               errEscape + "@3",
		"\"a\nb\"":                             errEscape + "@2",
		`"abc`:                                 errQuote + "@4",
		"\"\xff\"":                             errEncoding + "@1",
		"1e999":                                errBig + "@0",
		"1.":                                   errFraction + "@2",
		"1e+":                                  errExponent + "@3",
		strings.Repeat("[", 300):               errTooDeep + "@257",
		`{"a":` + strings.Repeat(`{"a":`, 300): errTooDeep + "@1285",
	} {
		_, err := parse([]byte(text))
		require.Error(t, err, text)
		reason, at, _ := strings.Cut(want, "@")
		require.Equal(t, fmt.Sprintf("JSON parse error: %s (offset %s)\n", reason, at), err.Error(), text)
	}
	p := parser{text: []byte("[0,[0,0]]"), left: 4}
	_, err := p.value(0)
	require.ErrorContains(t, err, errTooDeep)
}

// parse agrees with encoding/json on what JSON is, but for what it says it refuses, and never crashes.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		`{"input":[1.0,2]}`, `{"input_batch":["a","\u00e9"],"version":"1"}`, `[1e5,-0,0.5,{"a":null}]`, `"\ud83d\ude00"`, `{"a":{"b":[]}}`, "[[[", "1e999", "\"\x00\"", "-", "\xff",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := parse(text)
		switch {
		case err == nil:
			require.True(t, json.Valid(text), "%q", text)
			b := &body{root: v}
			for _, kind := range inputTypes {
				b.err = nil
				for _, tensor := range b.questions(kind) {
					require.True(t, b.err != nil || tensor != nil)
				}
			}
		case json.Valid(text) && utf8.Valid(text):
			lax := strings.Contains(err.Error(), errTooDeep) || strings.Contains(err.Error(), errBig) || strings.Contains(err.Error(), errSurrogate)
			require.True(t, lax, "%q: %v", text, err)
		}
	})
}

// What is appended as an output is JSON, whatever the model said.
func FuzzOutput(f *testing.F) {
	for _, output := range []string{"1", "-1.0", "x", `{"a": 1}`, "\xff", strings.Repeat("[", 300), "\"\\", "\x00", "1 2"} {
		f.Add(output)
	}
	f.Fuzz(func(t *testing.T, output string) {
		b := appendOutput([]byte(`{"output":`), output)
		require.True(t, json.Valid(append(b, '}')), "%q: %s", output, b)
	})
}
