// SPDX-License-Identifier: Apache-2.0

// Package telemetry is what the services tell about themselves: how log lines
// look, which build is running, and what the RPCs that are served do.
//
// Nothing here is global. The logger and the metrics registry are made once, at
// the start of the program, and handed on.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"
)

// Log formats.
const (
	FormatText = "text"
	FormatJSON = "json"
)

// NewLogger returns a logger that writes lines of the given format, at the given
// level and above, to w. It is safe for concurrent use.
func NewLogger(format string, level slog.Level, w io.Writer) (*slog.Logger, error) {
	options := &slog.HandlerOptions{Level: level}
	switch format {
	case FormatText:
		return slog.New(slog.NewTextHandler(w, options)), nil
	case FormatJSON:
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("log format %q: want %q or %q", format, FormatText, FormatJSON)
}
