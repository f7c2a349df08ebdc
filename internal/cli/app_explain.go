// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

type appExplain struct {
	Name      string `arg:"" complete:"application" help:"The application."`
	Context   string `placeholder:"NAME" help:"The user, session or device. Default: the state that all share, and everybody's decisions."`
	Decisions uint32 `placeholder:"N" default:"10" help:"How many of the latest decisions, at most 100."`
}

func (appExplain) Help() string {
	return `Decisions are those that the selector which is asked remembers: all of the last ones, or a hundred a second of a busy application.

Examples:

    clipper app explain digits
    clipper app explain digits --context user-7 --decisions 50`
}

func (a appExplain) Run(c *client) error {
	service, err := c.applications()
	if err != nil {
		return err
	}
	r, err := service.ExplainSelection(c.ctx, &clipperv1.ExplainSelectionRequest{Application: a.Name, Context: a.Context, Decisions: a.Decisions})
	if err != nil {
		return err
	}
	if c.JSON {
		return c.writeJSON(r)
	}
	state := r.GetState()
	if _, err = fmt.Fprintf(c.Stdout, "%s, after %s feedbacks\n\n", state.GetPolicy(), number(state.GetObservations())); err != nil {
		return err
	}
	models := &table{header: []string{"MODEL", "WEIGHT", "PROBABILITY", "FEEDBACKS", "MEAN LOSS"}}
	for _, m := range state.GetModels() {
		count, loss := m.GetStatistics()["count"], ""
		if count > 0 {
			loss = fmt.Sprintf("%.4f", m.GetStatistics()["loss"]/count)
		}
		models.add(m.GetModel(), fmt.Sprintf("%.4f", m.GetWeight()), fmt.Sprintf("%.4f", m.GetProbability()), number(count), loss)
	}
	if err := c.writeTable(models); err != nil {
		return err
	}
	c.blankLine()
	if len(r.GetDecisions()) == 0 {
		_, err = fmt.Fprintln(c.Stdout, "No decisions are remembered.")
		return err
	}
	return c.writeTable(decisionTable(r.GetDecisions()))
}

// decisionTable has one row for each model of each decision; what is of the decision as a whole is in the first.
func decisionTable(decisions []*clipperv1.Decision) *table {
	t := &table{header: []string{"TIME", "CONTEXT", "MODEL", "PROPENSITY", "WEIGHT", "SAID", "LOSS", "ANSWER", "LATENCY", "FEEDBACK"}}
	for _, d := range decisions {
		for i, m := range d.GetModels() {
			name, version := m.GetModel(), m.GetVersion()
			if version != "" && !strings.HasSuffix(name, ":"+version) {
				name += ":" + version
			}
			if m.GetShadow() {
				name += " (shadow)"
			}
			said := outputText(m.GetPrediction())
			if m.GetPrediction() == nil {
				said = enum(m.GetStatus(), "PREDICTION_STATUS_")
			}
			row := []string{" ", " ", name, number(m.GetPropensity()), fmt.Sprintf("%.4f", m.GetWeight()), said, lossOf(d, m.GetModel())}
			if i == 0 {
				row[0], row[1] = d.GetTime().AsTime().Format("2006-01-02T15:04:05.000Z"), d.GetContext()
				row = append(row, answerOf(d), duration(d.GetLatency().AsDuration().Round(10*time.Microsecond)), toldOf(d.GetFeedback()))
			}
			t.add(row...)
		}
	}
	return t
}

// outputText returns an output as one line that is not too long.
func outputText(v *structpb.Value) string {
	if v == nil {
		return ""
	}
	text, err := json.Marshal(v.AsInterface())
	if err != nil {
		return "?"
	}
	const most = 40
	if runes := []rune(string(text)); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return string(text)
}

func lossOf(d *clipperv1.Decision, model string) string {
	losses := d.GetFeedback().GetLosses()
	if i := slices.IndexFunc(losses, func(l *clipperv1.ModelLoss) bool { return l.GetModel() == model }); i >= 0 {
		return number(losses[i].GetLoss())
	}
	return ""
}

func answerOf(d *clipperv1.Decision) string {
	text := outputText(d.GetOutput())
	if d.GetDefaultReason() != clipperv1.DefaultReason_DEFAULT_REASON_UNSPECIFIED {
		return text + " (default: " + enum(d.GetDefaultReason(), "DEFAULT_REASON_") + ")"
	}
	return text + " (confidence " + number(d.GetConfidence()) + ")"
}

func toldOf(f *clipperv1.DecisionFeedback) string {
	var told []string
	if f.GetTruth() != nil {
		told = append(told, "truth "+outputText(f.GetTruth()))
	}
	if f != nil && f.Reward != nil {
		told = append(told, "reward "+number(f.GetReward()))
	}
	return strings.Join(told, ", ")
}
