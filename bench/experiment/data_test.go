// SPDX-License-Identifier: Apache-2.0

package experiment

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMain_skips: without its data an experiment says so, which is no failure.
func TestMain_skips(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("CLIPPER_DATA", folder)
	e := Experiment{Name: "e", Run: func(context.Context, io.Writer) (*Result, error) {
		path, err := Data("/somewhere", "set/file.gz")
		if err != nil {
			return nil, err
		}
		return &Result{Load: path, Bars: []Bar{AtLeast("bar", 1, "", 2)}}, nil
	}}
	var out, log strings.Builder
	require.Zero(t, Main(t.Context(), []string{"e"}, &out, &log, e))
	require.Contains(t, log.String(), "skipped: there is no "+filepath.Join(folder, "set", "file.gz")+"; set CLIPPER_DATA")
	require.Empty(t, out.String())

	require.NoError(t, os.MkdirAll(filepath.Join(folder, "set"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "set", "file.gz"), nil, 0o600))
	require.Equal(t, 1, Main(t.Context(), []string{"e"}, &out, &log, e), "a bar that is not met is one")
	require.Contains(t, out.String(), folder)
}
