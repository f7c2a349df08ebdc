// SPDX-License-Identifier: Apache-2.0

package cli

import "fmt"

type versionCmd struct {
	JSON bool `name:"json" help:"Write one JSON document."`
}

func (v *versionCmd) apply(c *client) { c.JSON = v.JSON }

func (versionCmd) Help() string { return "Example:\n\n    clipper version" }

func (versionCmd) Run(c *client) error {
	if c.JSON {
		return c.writeJSON(c.build)
	}
	_, err := fmt.Fprintf(c.Stdout, "clipper %s\n", c.build)
	return err
}
