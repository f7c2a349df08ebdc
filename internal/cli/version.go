// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/clipper-serving/clipper/internal/sbom"
)

type versionCmd struct {
	JSON bool `name:"json" xor:"form" help:"Write one JSON document."`
	SBOM bool `name:"sbom" xor:"form" help:"Write what this program is made of: a software bill of materials, as CycloneDX in JSON."`
}

func (v *versionCmd) apply(c *client) { c.JSON = v.JSON }

func (versionCmd) Help() string {
	return "Examples:\n\n    clipper version\n    clipper version --sbom > clipper.cdx.json"
}

func (v *versionCmd) Run(c *client) error {
	if v.SBOM {
		info, ok := debug.ReadBuildInfo()
		if !ok {
			return errors.New("this program was built without the list of its modules: build it with `go build`")
		}
		return sbom.Write(c.Stdout, c.build, info)
	}
	if c.JSON {
		return c.writeJSON(c.build)
	}
	_, err := fmt.Fprintf(c.Stdout, "clipper %s\n", c.build)
	return err
}
