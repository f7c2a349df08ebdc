// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

type modelRepository struct{}

func (modelRepository) Help() string {
	return `A model repository is given to the services: clipper up --model-repository DIR (or s3://BUCKET/PREFIX).

Examples:

    clipper model repository
    clipper model repository --json`
}

func (modelRepository) Run(c *client) error {
	repository, err := c.repository()
	if err != nil {
		return err
	}
	if c.JSON {
		return c.writeJSON(repository)
	}
	if repository.GetLocation() == "" {
		_, err := fmt.Fprintln(c.Stdout, "There is no model repository: start the services with --model-repository.")
		return err
	}
	facts := &table{}
	facts.add("repository", repository.GetLocation())
	seen := "never"
	if repository.GetScanTime() != nil {
		seen = age(repository.GetScanTime()) + " ago"
	}
	facts.add("last look", seen)
	if repository.GetFailure() != "" {
		facts.add("failure", indent(repository.GetFailure(), "            "))
	}
	if err := facts.write(c.Stdout, false); err != nil {
		return err
	}
	if len(repository.GetVersions()) == 0 {
		return nil
	}
	c.blankLine()
	t := &table{header: []string{"MODEL", "VERSION", "STATE", "MESSAGE"}, state: 2}
	for _, v := range repository.GetVersions() {
		t.add(v.GetModel(), v.GetVersion(), enum(v.GetState(), "REPOSITORY_STATE_"), v.GetMessage())
	}
	return c.writeTable(t)
}

func (c *client) repository() (*clipperv1.GetModelRepositoryResponse, error) {
	service, err := c.models()
	if err != nil {
		return nil, err
	}
	return service.GetModelRepository(c.ctx, &clipperv1.GetModelRepositoryRequest{})
}

// showRepository writes what is wrong with the model repository, or, if a model is named, with that in it. A model that
// is in order, or no repository, needs no word; nor does a server from before there were repositories.
func (c *client) showRepository(model string) error {
	repository, err := c.repository()
	if err != nil {
		return nil //nolint:nilerr // See above; what was asked for is shown.
	}
	failed := slices.DeleteFunc(repository.GetVersions(), func(v *clipperv1.RepositoryVersion) bool {
		return model != "" && v.GetModel() != model || v.GetState() != clipperv1.RepositoryState_REPOSITORY_STATE_FAILED
	})
	if model == "" && repository.GetFailure() != "" {
		if _, err := fmt.Fprintf(c.Stdout, "\nThe model repository %s cannot be looked at: %s\n", repository.GetLocation(), repository.GetFailure()); err != nil {
			return err
		}
	}
	if len(failed) == 0 {
		return nil
	}
	if _, err := fmt.Fprintf(c.Stdout, "\nNot deployed from the model repository %s:\n", repository.GetLocation()); err != nil {
		return err
	}
	for _, v := range failed {
		name := v.GetModel()
		if v.GetVersion() != "" {
			name += ":" + v.GetVersion()
		}
		if _, err := fmt.Fprintf(c.Stdout, "  %s: %s\n", name, indent(v.GetMessage(), "    ")); err != nil {
			return err
		}
	}
	return nil
}
