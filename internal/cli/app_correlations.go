// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

type appCorrelations struct {
	Name string `arg:"" complete:"application" help:"The application."`
}

func (appCorrelations) Help() string {
	return `Models that go wrong together are one opinion, which should count once: let them share a group.

Examples:

    clipper app correlations digits
    clipper app update digits --group svm=linear --group logistic=linear`
}

func (a appCorrelations) Run(c *client) error {
	service, err := c.applications()
	if err != nil {
		return err
	}
	r, err := service.GetModelCorrelations(c.ctx, &clipperv1.GetModelCorrelationsRequest{Application: a.Name})
	if err != nil {
		return err
	}
	if c.JSON {
		return c.writeJSON(r)
	}
	if len(r.GetPairs()) == 0 {
		_, err := fmt.Fprintln(c.Stdout, "No two models have answered the same query whose truth came back.")
		return err
	}
	t := &table{header: []string{"MODEL", "MODEL", "QUERIES", "CORRELATION", "AT LEAST (95 %)", "MEAN LOSS", "MEAN LOSS"}}
	for _, p := range r.GetPairs() {
		correlation, lower := "", ""
		if p.Correlation != nil {
			correlation = fmt.Sprintf("%.3f", p.GetCorrelation())
		}
		if p.CorrelationLower != nil {
			lower = fmt.Sprintf("%.3f", p.GetCorrelationLower())
		}
		t.add(p.GetFirst(), p.GetSecond(), number(p.GetObservations()), correlation, lower, fmt.Sprintf("%.4f", p.GetFirstLoss()), fmt.Sprintf("%.4f", p.GetSecondLoss()))
	}
	if err := c.writeTable(t); err != nil {
		return err
	}
	for i, g := range r.GetSuggestedGroups() {
		if i == 0 {
			c.blankLine()
		}
		if _, err := fmt.Fprintf(c.Stdout, "Should share a group: %s (correlation at least %.3f).\n", strings.Join(g.GetModels(), ", "), g.GetCorrelation()); err != nil {
			return err
		}
	}
	return nil
}
