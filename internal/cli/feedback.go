// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

type feedbackCmd struct {
	App     string   `arg:"" complete:"application" help:"The application."`
	ID      string   `name:"id" placeholder:"FEEDBACK_ID" help:"The feedback id of the answer."`
	Input   string   `placeholder:"INPUT" help:"Instead of an id: the query's input as JSON, @FILE, or - for standard input."`
	Context string   `placeholder:"NAME" help:"With --input: the query's context."`
	Once    string   `placeholder:"KEY" help:"With --input: feedback of the same key counts once."`
	Truth   *string  `placeholder:"OUTPUT" help:"The true answer: JSON, or a text as it is."`
	Reward  *float64 `placeholder:"X" help:"With --id: how good the answer was, in [0, 1]."`
	queryOptions
}

func (feedbackCmd) Help() string {
	return `Examples:

    clipper feedback digits --id AWx... --truth 7
    clipper feedback sentiment --id AWx... --reward 0.8
    clipper feedback digits --input @image.json --truth 7 --once image-17
    clipper feedback shift --id AWx... --truth=-5`
}

func (f *feedbackCmd) Run(c *client) error {
	switch {
	case (f.ID == "") == (f.Input == ""):
		return &failure{code: ExitUsage, message: "which query? Expected one of --id and --input", details: f.Help()}
	case (f.Truth == nil) == (f.Reward == nil):
		return &failure{code: ExitUsage, message: "how did it turn out? Expected one of --truth and --reward", details: f.Help()}
	case f.Reward != nil && f.ID == "":
		return usagef("--reward goes with --id: it is for one answer, not for an input")
	case f.Input == "" && (f.Context != "" || f.Once != ""):
		return usagef("--context and --once go with --input: an id says it all")
	}
	request := &clipperv1.FeedbackRequest{Application: f.App, FeedbackId: f.ID, Context: f.Context, Id: f.Once}
	if f.Input != "" {
		input, err := c.readInput(f.Input)
		if err != nil {
			return err
		}
		request.InputJson = input
	}
	if f.Truth != nil {
		truth, err := parseValue(*f.Truth)
		if err != nil {
			return usagef("--truth: %s", err)
		}
		request.Observation = &clipperv1.FeedbackRequest_Truth{Truth: truth}
	} else {
		request.Observation = &clipperv1.FeedbackRequest_Reward{Reward: *f.Reward}
	}
	conn, err := c.queries()
	if err != nil {
		return err
	}
	response, err := clipperv1.NewFeedbackServiceClient(conn).Feedback(c.ctx, request)
	if err != nil {
		return err
	}
	if c.JSON {
		return c.writeJSON(response)
	}
	if response.GetDuplicate() {
		_, err := fmt.Fprintln(c.Stdout, "It was counted before; nothing has changed.")
		return err
	}
	said := "Counted."
	if response.GetBuffered() {
		said = "Kept: it counts as soon as the selector's store can be reached, if it has not been counted before."
	}
	if _, err := fmt.Fprintln(c.Stdout, said); err != nil || len(response.GetLosses()) == 0 {
		return err
	}
	c.blankLine()
	t := &table{header: []string{"MODEL", "LOSS"}}
	for _, l := range response.GetLosses() {
		t.add(l.GetModel(), number(l.GetLoss()))
	}
	return c.writeTable(t)
}
