// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"google.golang.org/protobuf/encoding/protojson"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/selector/decisionlog"
	"github.com/clipper-serving/clipper/selector/evaluate"
)

type appEvaluate struct {
	Name   string             `arg:"" complete:"application" help:"The application whose decisions were logged."`
	Log    []string           `required:"" sep:"none" placeholder:"FILE|DIR" help:"Decision log, JSON lines or Parquet; of a directory all files in and below it. May be repeated."`
	Policy *string            `placeholder:"NAME" complete:"single,static,majority,mean,epsilon-greedy,ucb1,thompson,exp3,exp4,linucb" help:"The policy to judge. Default: the application's."`
	Param  map[string]float64 `mapsep:"," placeholder:"NAME=X" help:"Parameter of the policy; may be repeated."`
	Models []string           `placeholder:"MODEL[:VERSION]" help:"The models that the policy may ask. Default: the application's."`
	Weight map[string]float64 `mapsep:"," placeholder:"MODEL=W" help:"Weight of a model, as in app create."`
	Frozen bool               `help:"Judge the policy by what the application has learned until now, instead of letting it learn in the order of the log."`
	App    string             `name:"app" placeholder:"FILE" help:"The application as app show --json writes it, instead of asking a server; - for standard input."`
	State  string             `placeholder:"FILE" help:"For --frozen: what was learned, as app state --json writes it, instead of asking a server."`
}

func (appEvaluate) Help() string {
	return `Says what another policy would have earned on the logged traffic, with 95 % intervals, and what to be wary of. With
--app, and with --frozen also --state, no server is needed.

Examples:

    clipper app evaluate digits --policy thompson --log ~/.local/share/clipper/decisions/digits
    clipper app evaluate digits --policy static --weight svm=1,forest=3 --log decisions.parquet
    clipper app evaluate digits --policy exp3 --param eta=0.1 --frozen --log decisions.jsonl --json
    clipper app evaluate digits --app digits.json --policy majority --log decisions.jsonl`
}

func (a *appEvaluate) Run(c *client) error {
	app, err := a.application(c)
	if err != nil {
		return err
	}
	var options evaluate.Options
	if options.Frozen, err = a.state(c); err != nil {
		return err
	}
	log, err := decisionlog.Read(a.Name, a.Log...)
	if err != nil {
		return err
	}
	r, err := evaluate.Run(app, log.Decisions, options)
	if errors.Is(err, evaluate.ErrNothing) {
		return fmt.Errorf("%w (files read: %d, decisions of the application: %d, lines or rows that cannot be read: %d)", err, log.Files, len(log.Decisions), log.Broken)
	}
	if err != nil {
		return err
	}
	if log.Broken > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("%d lines or rows of the log cannot be read", log.Broken))
	}
	if log.Unfinished > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("%d Parquet files were not completed, or are still being written", log.Unfinished))
	}
	if log.Orphans > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("%d feedbacks are for decisions that are not in these files", log.Orphans))
	}
	if c.JSON {
		return c.writeJSON(r)
	}
	return c.showReport(r)
}

// application returns the application with the policy to judge.
func (a *appEvaluate) application(c *client) (*clipperv1.Application, error) {
	app := &clipperv1.Application{}
	if a.App == "" {
		service, err := c.applications()
		if err != nil {
			return nil, err
		}
		response, err := service.GetApplication(c.ctx, &clipperv1.GetApplicationRequest{Application: a.Name})
		if err != nil {
			return nil, err
		}
		app = response.GetApplication()
	}
	changes := appFlags{File: a.App, Policy: a.Policy, Param: a.Param, Models: a.Models, Weight: a.Weight}
	if _, err := changes.change(c, app); err != nil {
		return nil, err
	}
	if err := setName(app, a.Name); err != nil {
		return nil, err
	}
	if app.GetOutput().GetKind() == clipperv1.OutputKind_OUTPUT_KIND_UNSPECIFIED {
		return nil, usagef("--app: the application's output has no kind; `clipper app show %s --json` writes all of it", a.Name)
	}
	return app, nil
}

// state returns what the application has learned; nil when the policy is to learn by itself.
func (a *appEvaluate) state(c *client) (*clipperv1.GetSelectionStateResponse, error) {
	switch {
	case !a.Frozen && a.State != "":
		return nil, usagef("--state is for --frozen")
	case !a.Frozen:
		return nil, nil
	case a.State == "":
		service, err := c.applications()
		if err != nil {
			return nil, err
		}
		return service.GetSelectionState(c.ctx, &clipperv1.GetSelectionStateRequest{Application: a.Name})
	}
	text, err := os.ReadFile(a.State)
	if err != nil {
		return nil, fmt.Errorf("read the state: %w", err)
	}
	state := &clipperv1.GetSelectionStateResponse{}
	if !json.Valid(text) || protojson.Unmarshal(text, state) != nil {
		return nil, usagef("--state %s: it is not what `clipper app state %s --json` writes", a.State, a.Name)
	}
	return state, nil
}

func (c *client) showReport(r *evaluate.Report) error {
	how := "estimated"
	if r.Exact {
		how = "replayed exactly"
	}
	if r.Learns {
		how += ", learning in the order of the log"
	}
	if _, err := fmt.Fprintf(c.Stdout, "%s on %d of %d decisions of %s, %s\n\n", r.Policy, r.Used, r.Decisions, r.Application, how); err != nil {
		return err
	}
	t := &table{header: []string{"ESTIMATE", "REWARD", "FROM", "TO (95 %)"}}
	for _, e := range append([]evaluate.Estimate{r.Logged}, r.Estimates...) {
		t.add(e.Name, fmt.Sprintf("%.4f", e.Reward), fmt.Sprintf("%.4f", e.Lower), fmt.Sprintf("%.4f", e.Upper))
	}
	if err := c.writeTable(t); err != nil {
		return err
	}
	if !r.Exact {
		if _, err := fmt.Fprintf(c.Stdout, "\nEffective samples: %.0f; the largest weight: %s.\n", r.EffectiveSamples, number(r.LargestWeight)); err != nil {
			return err
		}
	}
	for i, warning := range r.Warnings {
		if i == 0 {
			c.blankLine()
		}
		if _, err := fmt.Fprintf(c.Stdout, "Warning: %s.\n", warning); err != nil {
			return err
		}
	}
	return nil
}
