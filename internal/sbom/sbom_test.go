// SPDX-License-Identifier: Apache-2.0

package sbom_test

import (
	"bytes"
	"runtime/debug"
	"testing"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/sbom"
	"github.com/clipper-serving/clipper/internal/telemetry"
)

func TestWrite(t *testing.T) {
	info := &debug.BuildInfo{
		GoVersion: "go1.26.0",
		Main:      debug.Module{Path: "github.com/clipper-serving/clipper", Version: "(devel)"},
		Deps: []*debug.Module{
			{Path: "example.com/plain", Version: "v1.2.3", Sum: "h1:abc="},
			{Path: "example.com/old", Version: "v1.0.0+incompatible"},
			{Path: "example.com/forked", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/fork", Version: "v1.0.1", Sum: "h1:def="}},
			{Path: "example.com/here", Version: "v0.0.0", Replace: &debug.Module{Path: "./here", Version: ""}},
		},
	}
	build := telemetry.Build{Version: "v2.0.0", Revision: "4f2a91c0", Time: "2026-01-02T03:04:05Z", Go: "go1.26.0"}
	write := func() []byte {
		var b bytes.Buffer
		require.NoError(t, sbom.Write(&b, build, info))
		return b.Bytes()
	}
	text := write()
	require.Equal(t, text, write(), "the same binary has the same bill")

	var bill cyclonedx.BOM
	require.NoError(t, cyclonedx.NewBOMDecoder(bytes.NewReader(text), cyclonedx.BOMFileFormatJSON).Decode(&bill))
	require.Equal(t, cyclonedx.SpecVersion1_6, bill.SpecVersion)
	require.Equal(t, "2026-01-02T03:04:05Z", bill.Metadata.Timestamp)
	require.Equal(t, "pkg:golang/github.com/clipper-serving/clipper@v2.0.0", bill.Metadata.Component.PackageURL)
	require.Equal(t, "4f2a91c0", (*bill.Metadata.Component.Properties)[0].Value)
	urls := map[string]string{}
	for _, part := range *bill.Components {
		urls[part.PackageURL] = ""
		if part.Properties != nil {
			urls[part.PackageURL] = (*part.Properties)[0].Value
		}
	}
	require.Equal(t, map[string]string{
		"pkg:golang/stdlib@1.26.0":                         "",
		"pkg:golang/example.com/plain@v1.2.3":              "h1:abc=",
		"pkg:golang/example.com/old@v1.0.0%2Bincompatible": "",
		"pkg:golang/example.com/fork@v1.0.1":               "h1:def=",
		"pkg:golang/example.com/here@v0.0.0":               "",
	}, urls)
	require.Len(t, *(*bill.Dependencies)[0].Dependencies, len(urls))
}
