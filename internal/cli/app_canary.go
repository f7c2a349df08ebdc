// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// canaryFlags are the fields of an application's canary as flags; nil is what is not given.
type canaryFlags struct {
	Canary              *string  `placeholder:"MODEL[=SHARE]" help:"Let in a model of a static policy step by step, from this share (default 0.01), while it is not worse."`
	NoCanary            bool     `help:"Leave the weights as they are from now on."`
	CanaryBaseline      *string  `placeholder:"MODEL" help:"The model that it is compared with. Default: the only other one."`
	CanaryFinal         *float64 `placeholder:"SHARE" help:"Its share in the end. Default: 1."`
	CanaryStep          *float64 `placeholder:"X" help:"The factor of a step. Default: 2."`
	CanaryMinFeedbacks  *uint32  `placeholder:"N" help:"The fewest feedbacks for it between two steps. Default: 100."`
	CanaryLossMargin    *float64 `placeholder:"X" help:"By how much its mean loss may be more. Default: 0.02."`
	CanaryErrorMargin   *float64 `placeholder:"X" help:"By how much its share of errors may be more. Default: 0.02."`
	CanaryLatencyMargin *float64 `placeholder:"X" help:"By how much its mean latency may be more, as a share of the objective. Default: 0.1."`
	CanaryConfidence    *float64 `placeholder:"X" help:"The probability that no test is ever wrong. Default: 0.95."`
}

// changeCanary sets the canary. Another model starts with the defaults.
func (f *canaryFlags) changeCanary(app *clipperv1.Application, changed map[string]bool) error {
	if f.NoCanary {
		if f.Canary != nil {
			return usagef("--no-canary: there is --canary, too")
		}
		app.Canary, changed["canary"] = nil, true
		return nil
	}
	given := false
	if f.Canary != nil {
		given = true
		model, share, shared := strings.Cut(*f.Canary, "=")
		if app.GetCanary().GetModel() != model {
			app.Canary = &clipperv1.Canary{Model: model}
		}
		if shared {
			x, err := strconv.ParseFloat(share, 64)
			if err != nil || model == "" {
				return usagef("--canary: %q is not MODEL or MODEL=SHARE, as in svm:2=0.05", *f.Canary)
			}
			app.Canary.InitialShare = x
		}
	}
	// What is not there yet may be on the server: a change is tried without it first.
	c := cmp.Or(app.GetCanary(), &clipperv1.Canary{})
	for _, x := range []struct {
		from *float64
		to   *float64
	}{
		{f.CanaryFinal, &c.FinalShare},
		{f.CanaryStep, &c.Step},
		{f.CanaryLossMargin, &c.LossMargin},
		{f.CanaryErrorMargin, &c.ErrorMargin},
		{f.CanaryLatencyMargin, &c.LatencyMargin},
		{f.CanaryConfidence, &c.Confidence},
	} {
		if x.from != nil {
			*x.to, given = *x.from, true
		}
	}
	if f.CanaryBaseline != nil {
		c.Baseline, given = *f.CanaryBaseline, true
	}
	if f.CanaryMinFeedbacks != nil {
		c.MinFeedbacks, given = *f.CanaryMinFeedbacks, true
	}
	if given {
		app.Canary, changed["canary"] = c, true
	}
	return nil
}

// canaryOf returns an application's canary as the flags name it.
func canaryOf(c *clipperv1.Canary) string {
	return fmt.Sprintf("%s, from %s to %s by %s, against %s; allowed more: loss %s, errors %s, latency %s; confidence %s; at least %d feedbacks a step",
		c.GetModel(), percent(c.GetInitialShare()), percent(c.GetFinalShare()), number(c.GetStep()), c.GetBaseline(),
		number(c.GetLossMargin()), number(c.GetErrorMargin()), number(c.GetLatencyMargin()), number(c.GetConfidence()), c.GetMinFeedbacks())
}

func percent(share float64) string {
	return strconv.FormatFloat(100*share, 'g', 4, 64) + " %"
}

type appCanary struct {
	Name  string `arg:"" complete:"application" help:"The application."`
	Watch bool   `help:"Go on, and show every step, until the canary is promoted or rolled back."`
}

func (appCanary) Help() string {
	return `It shows the canary's share, the tests as they stand, and every step with its reason, the newest first. A test allows the next
step when the most that the canary is worse is within what is allowed, and ends the canary when the least is more.

Examples:

    clipper app canary digits
    clipper app canary digits --watch`
}

// watchPeriod is how often a canary is looked at.
const watchPeriod = time.Second

func (a appCanary) Run(c *client) error {
	service, err := c.applications()
	if err != nil {
		return err
	}
	ticker := time.NewTicker(watchPeriod)
	defer ticker.Stop()
	var before *clipperv1.GetCanaryResponse
	for {
		now, err := service.GetCanary(c.ctx, &clipperv1.GetCanaryRequest{Application: a.Name})
		if err != nil {
			return err
		}
		// Tests change with every query; what is told is what was done.
		if before == nil || before.GetState() != now.GetState() || !proto.Equal(firstStep(before), firstStep(now)) {
			if before != nil && !c.JSON {
				c.blankLine()
			}
			if err := c.showCanary(now); err != nil {
				return err
			}
		}
		if before = now; !a.Watch || now.GetState() != clipperv1.CanaryState_CANARY_STATE_RUNNING {
			return nil
		}
		select {
		case <-c.ctx.Done():
			return c.ctx.Err()
		case <-ticker.C:
		}
	}
}

func firstStep(r *clipperv1.GetCanaryResponse) *clipperv1.CanaryStep {
	if len(r.GetSteps()) == 0 {
		return nil
	}
	return r.GetSteps()[0]
}

// showCanary writes how far a canary has come.
func (c *client) showCanary(r *clipperv1.GetCanaryResponse) error {
	if c.JSON {
		return c.writeJSON(r)
	}
	if _, err := fmt.Fprintf(c.Stdout, "%s, with %s of the queries\n\n", enum(r.GetState(), "CANARY_STATE_"), percent(r.GetShare())); err != nil {
		return err
	}
	tests := &table{header: []string{"TEST", "CANARY", "BASELINE", "MORE BY", "ALLOWED", "VALUES"}}
	for _, t := range r.GetTests() {
		tests.add(t.GetMetric(), fmt.Sprintf("%.4f", t.GetCanary()), fmt.Sprintf("%.4f", t.GetBaseline()),
			fmt.Sprintf("%+.4f to %+.4f", t.GetLower(), t.GetUpper()), number(t.GetMargin()),
			number(t.GetCanaryCount())+" and "+number(t.GetBaselineCount()))
	}
	if err := c.writeTable(tests); err != nil {
		return err
	}
	c.blankLine()
	steps := &table{header: []string{"TIME", "FROM", "TO", "REASON"}}
	for _, s := range r.GetSteps() {
		steps.add(s.GetTime().AsTime().Format(time.RFC3339), percent(s.GetFrom()), percent(s.GetTo()), s.GetReason())
	}
	return c.writeTable(steps)
}
