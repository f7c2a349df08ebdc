// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Build identifies a binary.
type Build struct {
	Version  string `json:"version"`            // The release, or "devel".
	Revision string `json:"revision,omitempty"` // The commit it was built from.
	Time     string `json:"time,omitempty"`     // When that commit was made, in RFC 3339.
	Modified bool   `json:"modified,omitempty"` // Whether the working tree had changes.
	Go       string `json:"go"`                 // The version of Go that built it.
}

// ReadBuild describes the running binary. The version is the one that the main
// package was linked with (-ldflags "-X main.version=..."); when it is empty, it
// is the version of the main module.
func ReadBuild(version string) Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return newBuild(version, info)
}

func newBuild(version string, info *debug.BuildInfo) Build {
	b := Build{Version: version, Go: info.GoVersion}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = "devel"
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// String returns the build in one line, as "v1.2.0 (4f2a91c07b3d, modified, go1.26.8)".
func (b Build) String() string {
	var notes []string
	if b.Revision != "" {
		notes = append(notes, b.Revision[:min(12, len(b.Revision))])
	}
	if b.Modified {
		notes = append(notes, "modified")
	}
	if b.Go != "" {
		notes = append(notes, b.Go)
	}
	if len(notes) == 0 {
		return b.Version
	}
	return fmt.Sprintf("%s (%s)", b.Version, strings.Join(notes, ", "))
}

// NewRegistry returns a registry that knows the process, the Go runtime and
// which build is running.
func NewRegistry(build Build) *prometheus.Registry {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "clipper_build_info",
		Help: "The build that is running, in the labels; the value is always 1.",
		ConstLabels: prometheus.Labels{
			"version": build.Version, "revision": build.Revision, "goversion": build.Go,
		},
	})
	info.Set(1)
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		info,
	)
	return registry
}
