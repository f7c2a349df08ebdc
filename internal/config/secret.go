// SPDX-License-Identifier: Apache-2.0

package config

// Secret is a setting that is not shown: not in logs, and not by the packages that format values.
type Secret string

// redacted is what is shown instead.
const redacted = "[secret]"

// String hides the secret; string(s) is the secret itself.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return `config.Secret("` + s.String() + `")` }

// MarshalText hides the secret from JSON and structured logs.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
