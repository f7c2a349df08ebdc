// SPDX-License-Identifier: Apache-2.0

package loadgen

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Objective is a bar that a run is to meet.
type Objective struct {
	// Name is what is measured, "p99"; Bar and Measured are as people write them.
	Name     string `json:"name"`
	Bar      string `json:"bar"`
	Measured string `json:"measured"`
	Met      bool   `json:"met"`

	bar float64 // Milliseconds, a share, or a rate.
}

// latencies are the percentiles that an objective, and a comparison, can be about.
var latencies = []struct {
	name string
	of   func(*Latency) float64
}{
	{"p50", func(l *Latency) float64 { return l.P50 }},
	{"p75", func(l *Latency) float64 { return l.P75 }},
	{"p90", func(l *Latency) float64 { return l.P90 }},
	{"p95", func(l *Latency) float64 { return l.P95 }},
	{"p99", func(l *Latency) float64 { return l.P99 }},
	{"p99.9", func(l *Latency) float64 { return l.P999 }},
	{"p99.99", func(l *Latency) float64 { return l.P9999 }},
	{"max", func(l *Latency) float64 { return l.Max }},
	{"mean", func(l *Latency) float64 { return l.Mean }},
}

// ParseObjectives reads objectives as in "p99=20ms,errors=0.1%,defaults=1%,rate=900".
func ParseObjectives(text string) ([]Objective, error) {
	var list []Objective
	for part := range strings.SplitSeq(text, ",") {
		name, bar, _ := strings.Cut(strings.TrimSpace(part), "=")
		o := Objective{Name: name, Bar: bar}
		var err error
		switch name {
		case "errors", "defaults":
			number, percent := strings.CutSuffix(bar, "%")
			if o.bar, err = strconv.ParseFloat(number, 64); percent {
				o.bar /= 100
			}
			if err == nil && !(o.bar >= 0 && o.bar <= 1) {
				err = strconv.ErrRange
			}
		case "rate":
			if o.bar, err = strconv.ParseFloat(bar, 64); err == nil && !(o.bar > 0 && o.bar <= maxRate) {
				err = strconv.ErrRange
			}
		default:
			if percentile(name) == nil {
				return nil, fmt.Errorf("%q is no objective: expected p50, p75, p90, p95, p99, p99.9, p99.99, max or mean with a time, errors or defaults with a share, or rate", part)
			}
			var d time.Duration
			d, err = time.ParseDuration(bar)
			if o.bar = float64(d) / 1e6; err == nil && d <= 0 {
				err = strconv.ErrRange
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%q is no objective: expected as in p99=20ms, errors=0.1%% or rate=900", part)
		}
		list = append(list, o)
	}
	return list, nil
}

func percentile(name string) func(*Latency) float64 {
	for _, l := range latencies {
		if l.name == name {
			return l.of
		}
	}
	return nil
}

// Judge measures objectives by the report, and reports whether all are met. Without queries, none is.
func (r *Report) Judge(objectives []Objective) bool {
	all := true
	for _, o := range objectives {
		asked := float64(max(1, r.Counts.Asked))
		switch o.Name {
		case "errors":
			share := float64(r.Counts.Errors) / asked
			o.Measured, o.Met = fmt.Sprintf("%.3g%%", 100*share), share <= o.bar
		case "defaults":
			share := float64(r.Counts.Defaults) / asked
			o.Measured, o.Met = fmt.Sprintf("%.3g%%", 100*share), share <= o.bar
		case "rate":
			o.Measured, o.Met = fmt.Sprintf("%.6g", r.Rates.Answered), r.Rates.Answered >= o.bar
		default:
			ms := percentile(o.Name)(&r.Latency)
			// Refusals have no latency: without any answer there is nothing that could meet it.
			o.Measured, o.Met = Milliseconds(ms), ms <= o.bar && r.Latency.Count > 0
		}
		o.Met = o.Met && r.Counts.Asked > 0
		all = all && o.Met
		r.Objectives = append(r.Objectives, o)
	}
	return all
}

// Milliseconds returns a time as people read it: "1.23ms".
func Milliseconds(ms float64) string {
	switch {
	case ms >= 1000:
		return fmt.Sprintf("%.3gs", ms/1000)
	case ms < 1:
		return fmt.Sprintf("%.3gµs", 1000*ms)
	}
	return fmt.Sprintf("%.3gms", ms)
}

// Comparison is how a run differs from an earlier one.
type Comparison struct {
	// Started is when the earlier run did.
	Started time.Time `json:"started"`
	// Different are the settings in which they differ.
	Different []Difference `json:"different"`
	Figures   []Change     `json:"figures"`
	// Distribution is that of the earlier run.
	Distribution []Quantile `json:"distribution"`
}

// Difference is a setting that two runs do not share.
type Difference struct {
	Name   string `json:"name"`
	Before string `json:"before"`
	Now    string `json:"now"`
}

// Change is a figure of both runs.
type Change struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	Before float64 `json:"before"`
	Now    float64 `json:"now"`
}

// Relative returns the change as people read it: "+12.3%".
func (c Change) Relative() string {
	if c.Before == 0 {
		return ""
	}
	return fmt.Sprintf("%+.1f%%", 100*(c.Now/c.Before-1))
}

// Compare adds the comparison with an earlier run.
func (r *Report) Compare(before *Report) {
	c := &Comparison{Started: before.Started, Different: []Difference{}, Distribution: before.Distribution}
	then := map[string]string{}
	for _, s := range before.Settings {
		then[s.Name] = s.Value
	}
	for _, s := range r.Settings {
		if s.Name != "seed" && then[s.Name] != s.Value {
			c.Different = append(c.Different, Difference{s.Name, then[s.Name], s.Value})
		}
		delete(then, s.Name)
	}
	for _, s := range before.Settings {
		if value, gone := then[s.Name]; gone {
			c.Different = append(c.Different, Difference{s.Name, value, ""})
		}
	}
	figure := func(name, unit string, before, now float64) {
		c.Figures = append(c.Figures, Change{name, unit, before, now})
	}
	share := func(n, of int) float64 { return 100 * float64(n) / float64(max(1, of)) }
	figure("answered", "/s", before.Rates.Answered, r.Rates.Answered)
	for _, l := range latencies {
		figure(l.name, "ms", l.of(&before.Latency), l.of(&r.Latency))
	}
	figure("errors", "%", share(before.Counts.Errors, before.Counts.Asked), share(r.Counts.Errors, r.Counts.Asked))
	figure("defaults", "%", share(before.Counts.Defaults, before.Counts.Asked), share(r.Counts.Defaults, r.Counts.Asked))
	r.Comparison = c
}
