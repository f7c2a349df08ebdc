// SPDX-License-Identifier: Apache-2.0

// Package sbom writes the software bill of materials of a Go binary, from what the linker has put into it: so it
// names exactly what is in there, and needs neither sources nor a network.
package sbom

import (
	"io"
	"runtime/debug"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"

	"github.com/clipper-serving/clipper/internal/telemetry"
)

// Write writes the bill as CycloneDX 1.6 in JSON. The same binary has the same bill.
func Write(w io.Writer, build telemetry.Build, info *debug.BuildInfo) error {
	main := component(cyclonedx.ComponentTypeApplication, info.Main.Path, build.Version)
	main.Licenses = &cyclonedx.Licenses{{License: &cyclonedx.License{ID: "Apache-2.0"}}}
	if build.Revision != "" {
		main.Properties = &[]cyclonedx.Property{{Name: "vcs.revision", Value: build.Revision}}
	}
	parts := []cyclonedx.Component{component(cyclonedx.ComponentTypeLibrary, "stdlib", strings.TrimPrefix(info.GoVersion, "go"))}
	for _, module := range info.Deps {
		part := component(cyclonedx.ComponentTypeLibrary, module.Path, module.Version)
		if module.Replace != nil && module.Replace.Version != "" {
			part = component(cyclonedx.ComponentTypeLibrary, module.Replace.Path, module.Replace.Version)
			module = module.Replace
		}
		if module.Sum != "" {
			// A digest over the digests of the module's files, as in go.sum: no hash of one file.
			part.Properties = &[]cyclonedx.Property{{Name: "go.sum", Value: module.Sum}}
		}
		parts = append(parts, part)
	}
	refs := make([]string, len(parts))
	for i, part := range parts {
		refs[i] = part.BOMRef
	}
	bill := cyclonedx.NewBOM()
	bill.Metadata = &cyclonedx.Metadata{Timestamp: build.Time, Component: &main}
	bill.Components = &parts
	// Which module brought which is not in a binary; that the program has them all is.
	bill.Dependencies = &[]cyclonedx.Dependency{{Ref: main.BOMRef, Dependencies: &refs}}
	encoder := cyclonedx.NewBOMEncoder(w, cyclonedx.BOMFileFormatJSON).SetPretty(true)
	return encoder.EncodeVersion(bill, cyclonedx.SpecVersion1_6)
}

func component(kind cyclonedx.ComponentType, path, version string) cyclonedx.Component {
	url := "pkg:golang/" + path
	if version != "" && version != "(devel)" {
		url += "@" + strings.ReplaceAll(version, "+", "%2B")
	}
	return cyclonedx.Component{BOMRef: url, Type: kind, Name: path, Version: version, PackageURL: url}
}
