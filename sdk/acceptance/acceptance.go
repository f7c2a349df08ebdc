// SPDX-License-Identifier: Apache-2.0

// Package acceptance has the list of what every SDK must do. README.md explains its form.
package acceptance

import (
	_ "embed"
	"encoding/json"
	"fmt"

	"sigs.k8s.io/yaml"
)

//go:embed acceptance.yaml
var source []byte

// List is the whole list.
type List struct {
	Models       []Model           `json:"models"`
	Applications []json.RawMessage `json:"applications"` // In the JSON form of clipper.v1.Application.
	Cases        []Case            `json:"cases"`
}

// Model is a model that the server deploys.
type Model struct {
	Model    string  `json:"model"`
	Version  string  `json:"version"`
	Kind     string  `json:"kind"` // What it computes: see server/container.go.
	Bias     int     `json:"bias"`
	Replicas *uint32 `json:"replicas"` // Absent: 1.
	Queue    uint32  `json:"queue"`    // The most rows that may wait; 0: the default.
}

// Case is a call with what is expected of it: Expect or Error.
type Case struct {
	Name    string            `json:"name"`
	Server  string            `json:"server"`
	Over    string            `json:"over"`
	Call    string            `json:"call"`
	Request map[string]any    `json:"request"`
	Expect  map[string]any    `json:"expect"`
	Error   *Error            `json:"error"`
	Save    map[string]string `json:"save"`
}

// Error is what an error must match.
type Error struct {
	Code         string `json:"code"`
	Reason       string `json:"reason"`
	Field        string `json:"field"`
	RESTField    string `json:"rest_field"`
	Message      string `json:"message"`
	RetryAfterMS any    `json:"retry_after_ms"`
	HTTP         int    `json:"http"`
}

// JSON returns the list as JSON.
func JSON() ([]byte, error) {
	text, err := yaml.YAMLToJSON(source)
	if err != nil {
		return nil, fmt.Errorf("read acceptance.yaml: %w", err)
	}
	return text, nil
}

// Load returns the list.
func Load() (*List, error) {
	var l List
	if err := yaml.UnmarshalStrict(source, &l); err != nil {
		return nil, fmt.Errorf("read acceptance.yaml: %w", err)
	}
	return &l, nil
}
