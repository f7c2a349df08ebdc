// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clipper-serving/clipper/internal/loadgen"
)

// loadProgress is the line that shows how a run goes.
func loadProgress(p loadgen.Progress) string {
	state := fmt.Sprintf("%s of %s", p.Elapsed.Round(time.Second), p.Length.Round(time.Second))
	switch {
	case p.WarmingUp:
		state = "warming up"
	case p.Elapsed > p.Length:
		state = "waiting for the last answers"
	}
	return fmt.Sprintf("%s: sent %.0f/s, answered %.0f/s, median %s, 99%% %s, errors %d, defaults %d, in flight %d;",
		state, p.Sent, p.Answered, nanoseconds(p.P50), nanoseconds(p.P99), p.Errors, p.Defaults, p.InFlight)
}

func nanoseconds(d time.Duration) string { return loadgen.Milliseconds(float64(d) / 1e6) }

// latencyCells are the percentiles of a table.
func latencyCells(l *loadgen.Latency) []string {
	cells := make([]string, 0, 7)
	for _, ms := range []float64{l.P50, l.P90, l.P99, l.P999, l.P9999, l.Max} {
		if l.Count == 0 {
			cells = append(cells, "")
			continue
		}
		cells = append(cells, loadgen.Milliseconds(ms))
	}
	return cells
}

var latencyHeader = []string{"MEDIAN", "90%", "99%", "99.9%", "99.99%", "MAX"}

// showLoad shows a report as tables.
func (c *client) showLoad(r *loadgen.Report) error {
	facts := &table{}
	for _, s := range r.Settings[:min(4, len(r.Settings))] {
		facts.add(s.Name, s.Value)
	}
	rate := fmt.Sprintf("asked %.6g/s, sent %.6g/s, answered %.6g/s", r.Rates.Asked, r.Rates.Sent, r.Rates.Answered)
	facts.add("rates", rate)
	n := r.Counts
	how := fmt.Sprintf("%d by default", n.Defaults)
	if n.Cached != nil {
		how += fmt.Sprintf(", %d from the cache", *n.Cached)
	}
	facts.add("queries", fmt.Sprintf("%d asked, %d answered (%s), %d errors", n.Asked, n.Answered, how, n.Errors))
	facts.add("late starts", fmt.Sprintf("%d of %d by more than 1ms; 99%% within %s, at most %s", r.Generator.Late, n.Sent, loadgen.Milliseconds(r.Generator.Lag.P99), loadgen.Milliseconds(r.Generator.Lag.Max)))
	if err := facts.write(c.Stdout, false); err != nil {
		return err
	}
	c.blankLine()
	t := &table{header: append([]string{"LATENCY"}, latencyHeader...)}
	t.add(append([]string{r.Loop + " loop"}, latencyCells(&r.Latency)...)...)
	if f := r.Feedback; f != nil {
		t.add(append([]string{fmt.Sprintf("feedback: %d of %d", f.Accepted, f.Sent)}, latencyCells(&f.Latency)...)...)
	}
	if err := c.writeTable(t); err != nil {
		return err
	}
	for _, show := range []func(*loadgen.Report) *table{loadStages, loadReasons, loadComparison, loadObjectives} {
		if t := show(r); t != nil {
			c.blankLine()
			if err := c.writeTable(t); err != nil {
				return err
			}
		}
	}
	for _, w := range r.Warnings {
		if _, err := fmt.Fprintf(c.Stdout, "\nNote: %s.\n", w); err != nil {
			return err
		}
	}
	return nil
}

func loadStages(r *loadgen.Report) *table {
	if len(r.Stages) < 2 {
		return nil
	}
	t := &table{header: append([]string{"STAGE", "ASKED/S", "ANSWERED/S", "DEFAULTS", "ERRORS"}, latencyHeader...)}
	for _, s := range r.Stages {
		cells := []string{s.Stage, fmt.Sprintf("%.6g", s.Rates.Asked), fmt.Sprintf("%.6g", s.Rates.Answered), strconv.Itoa(s.Defaults), strconv.Itoa(s.Errors)}
		t.add(append(cells, latencyCells(&s.Latency)...)...)
	}
	return t
}

func loadReasons(r *loadgen.Report) *table {
	t := &table{header: []string{"WHAT", "REASON", "QUERIES", "EXAMPLE"}}
	for _, reason := range slices.Sorted(maps.Keys(r.Defaults)) {
		t.add("default", reason, strconv.Itoa(r.Defaults[reason]))
	}
	failures := func(what string, errors []loadgen.ErrorCount) {
		for _, e := range errors {
			t.add(what, e.Reason, strconv.Itoa(e.Count), strings.ReplaceAll(e.Example, "\n", " "))
		}
	}
	failures("error", r.Errors)
	if r.Feedback != nil {
		failures("feedback", r.Feedback.Errors)
	}
	if len(t.rows) == 0 {
		return nil
	}
	return t
}

func loadComparison(r *loadgen.Report) *table {
	if r.Comparison == nil {
		return nil
	}
	t := &table{header: []string{"FIGURE", "BEFORE", "NOW", "CHANGE"}}
	for _, f := range r.Comparison.Figures {
		before, now := fmt.Sprintf("%.4g%s", f.Before, f.Unit), fmt.Sprintf("%.4g%s", f.Now, f.Unit)
		if f.Unit == "ms" {
			before, now = loadgen.Milliseconds(f.Before), loadgen.Milliseconds(f.Now)
		}
		t.add(f.Name, before, now, f.Relative())
	}
	for _, d := range r.Comparison.Different {
		t.add("setting: "+d.Name, d.Before, d.Now, "differs")
	}
	return t
}

func loadObjectives(r *loadgen.Report) *table {
	if len(r.Objectives) == 0 {
		return nil
	}
	t := &table{header: []string{"OBJECTIVE", "BAR", "MEASURED", "MET"}}
	for _, o := range r.Objectives {
		met := "yes"
		if !o.Met {
			met = "NO"
		}
		t.add(o.Name, o.Bar, o.Measured, met)
	}
	return t
}
