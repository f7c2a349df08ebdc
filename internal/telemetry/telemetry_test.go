// SPDX-License-Identifier: Apache-2.0

package telemetry_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/telemetry"
)

func TestNewLogger(t *testing.T) {
	var out bytes.Buffer
	log, err := telemetry.NewLogger(telemetry.FormatJSON, slog.LevelWarn, &out)
	require.NoError(t, err)
	log.Info("left out")
	log.Warn("kept", "model", "digits")
	var line map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &line), "one line of JSON")
	require.Equal(t, "kept", line["msg"])
	require.Equal(t, "digits", line["model"])

	out.Reset()
	log, err = telemetry.NewLogger(telemetry.FormatText, slog.LevelInfo, &out)
	require.NoError(t, err)
	log.Info("kept", "model", "digits")
	require.Contains(t, out.String(), "level=INFO msg=kept model=digits")

	_, err = telemetry.NewLogger("xml", slog.LevelInfo, &out)
	require.ErrorContains(t, err, `"xml"`)
}
