// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// bar shows how far the stream is: one line that is redrawn on a terminal, a line for each tenth
// elsewhere.
type bar struct {
	mu       sync.Mutex
	done     int
	total    int
	terminal bool
	drawn    time.Time
	start    time.Time
}

func newBar(total int) *bar {
	info, err := os.Stdout.Stat()
	return &bar{total: total, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0, start: time.Now()}
}

func (b *bar) step(summary string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done++
	rate := float64(b.done) / time.Since(b.start).Seconds()
	switch {
	case b.terminal && (time.Since(b.drawn) > 100*time.Millisecond || b.done == b.total):
		b.drawn = time.Now()
		full := 30 * b.done / b.total
		fmt.Printf("\r\x1b[K[%s%s] %d/%d  %.0f images/s  %s", strings.Repeat("#", full), strings.Repeat("-", 30-full), b.done, b.total, rate, summary)
	case !b.terminal && b.done%max(1, b.total/10) == 0:
		fmt.Printf("%5d/%d  %.0f images/s  %s\n", b.done, b.total, rate, summary)
	}
}

func (b *bar) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.terminal {
		fmt.Print("\r\x1b[K")
	}
	fmt.Printf("   >>> "+format+"\n", args...)
}

func (b *bar) end() {
	if b.terminal {
		fmt.Println()
	}
}

// summary is what the bar shows of a phase.
func (d *demo) summary(p phase) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Sprintf("%s: ensemble %.1f%%  exp3 %.1f%%", p, 100*d.score(p, d.ensemble).accuracy(), 100*d.score(p, d.bandit).accuracy())
}

// report prints the tables and returns the checks that failed.
func (d *demo) report(w io.Writer) (failed []string) {
	models := make([]string, 0, len(d.weights[before]))
	for name := range d.weights[before] {
		models = append(models, name)
	}
	slices.SortFunc(models, func(a, b string) int {
		return d.scores[before][b].right - d.scores[before][a].right
	})

	_, _ = fmt.Fprintf(w, "\nAccuracy on the same images; %s was spoiled in the phase \"failure\"\n", d.best)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "\tbefore\tfailure\tafter\t")
	for _, name := range append([]string{d.ensemble, d.bandit}, models...) {
		title := name
		switch name {
		case d.ensemble:
			title = "ensemble (Exp4)"
		case d.bandit:
			title = "Exp3"
		}
		_, _ = fmt.Fprintf(t, "%s\t%.2f%%\t%.2f%%\t%.2f%%\t\n", title,
			100*d.score(before, name).accuracy(), 100*d.score(failure, name).accuracy(), 100*d.score(after, name).accuracy())
	}
	_ = t.Flush()

	_, _ = fmt.Fprintln(w, "\nWeights of the ensemble at the end of each phase")
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "\tbefore\tfailure\tafter\t")
	for _, name := range models {
		_, _ = fmt.Fprintf(t, "%s\t%.3f\t%.3f\t%.3f\t\n", name, d.weights[before][name], d.weights[failure][name], d.weights[after][name])
	}
	_ = t.Flush()

	slices.Sort(d.latencies)
	at := func(q float64) time.Duration {
		return d.latencies[int(q*float64(len(d.latencies)-1))].Round(10 * time.Microsecond)
	}
	_, _ = fmt.Fprintf(w, "\n%d queries and as many feedbacks in %v: %.0f queries/s, latency p50 %v, p99 %v, default answers %.2f%%\n",
		d.answers, d.elapsed.Round(time.Millisecond), float64(d.answers)/d.elapsed.Seconds(), at(0.5), at(0.99), 100*float64(d.defaults)/float64(d.answers))

	ensemble := func(p phase) float64 { return d.score(p, d.ensemble).accuracy() }
	best := d.score(before, d.best).accuracy()
	_, _ = fmt.Fprintln(w, "\nChecks")
	check := func(ok bool, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		mark := "ok    "
		if !ok {
			mark = "FAILED"
			failed = append(failed, text)
		}
		_, _ = fmt.Fprintf(w, "  %s %s\n", mark, text)
	}
	check(ensemble(before) >= best, "before the failure the ensemble (%.2f%%) is at least as accurate as the best single model (%s, %.2f%%)", 100*ensemble(before), d.best, 100*best)
	check(d.weights[failure][d.best] < d.weights[before][d.best]/2, "the failure took the spoiled model's weight away (%.3f, then %.3f)", d.weights[before][d.best], d.weights[failure][d.best])
	// Two accuracies of some thousand images differ by up to two points by chance alone.
	check(ensemble(after) >= ensemble(before)-0.02, "after it the ensemble is back (%.2f%%, before %.2f%%)", 100*ensemble(after), 100*ensemble(before))
	check(d.weights[after][d.best] > d.weights[failure][d.best], "the healed model's weight comes back (%.3f, now %.3f)", d.weights[failure][d.best], d.weights[after][d.best])
	return failed
}
