// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"runtime/debug"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

func TestNewBuild(t *testing.T) {
	vcs := []debug.BuildSetting{
		{Key: "vcs.revision", Value: "4f2a91c07b3d55e1"},
		{Key: "vcs.time", Value: "2026-01-02T03:04:05Z"},
		{Key: "vcs.modified", Value: "true"},
	}
	tests := []struct {
		name    string
		version string
		info    debug.BuildInfo
		want    Build
		text    string
	}{
		{
			"linked", "v1.2.0",
			debug.BuildInfo{GoVersion: "go1.26.8", Main: debug.Module{Version: "(devel)"}, Settings: vcs},
			Build{Version: "v1.2.0", Revision: "4f2a91c07b3d55e1", Time: "2026-01-02T03:04:05Z", Modified: true, Go: "go1.26.8"},
			"v1.2.0 (4f2a91c07b3d, modified, go1.26.8)",
		},
		{
			"module", "",
			debug.BuildInfo{GoVersion: "go1.26.8", Main: debug.Module{Version: "v1.3.0"}},
			Build{Version: "v1.3.0", Go: "go1.26.8"},
			"v1.3.0 (go1.26.8)",
		},
		{"nothing known", "", debug.BuildInfo{}, Build{Version: "devel"}, "devel"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := newBuild(tt.version, &tt.info)
			require.Equal(t, tt.want, got)
			require.Equal(t, tt.text, got.String())
		})
	}
}

func TestNewRegistry(t *testing.T) {
	registry := NewRegistry(ReadBuild("v9"))
	n, err := testutil.GatherAndCount(registry, "clipper_build_info", "go_goroutines", "process_start_time_seconds")
	require.NoError(t, err)
	require.Equal(t, 3, n)
}
