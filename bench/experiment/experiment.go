// SPDX-License-Identifier: Apache-2.0

// Package experiment is the frame of every experiment: the command line, the machine's
// description, the table, the JSON and the plot.
package experiment

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// Experiment is one question to the system, answered by measurement.
type Experiment struct {
	// Name is how it is called on the command line.
	Name string
	// Summary says in a line what it measures.
	Summary string
	// Run measures. It writes progress, not results, to the log.
	Run func(ctx context.Context, log io.Writer) (*Result, error)
}

// Result is what an experiment found.
type Result struct {
	// Load says what was sent, by how many, and for how long.
	Load string
	// Columns names the cells of each row, with units.
	Columns []string
	// Rows are the measurements.
	Rows [][]any
	// Bars are what the experiment must show.
	Bars []Bar
	// Plot draws the result; nil when there is nothing to draw.
	Plot *Plot
}

// Bar is a limit and the figure held against it.
type Bar struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Want  string  `json:"want"`
	OK    bool    `json:"ok"`
}

// AtLeast returns a bar that value must not be below.
func AtLeast(name string, value float64, unit string, limit float64) Bar {
	return Bar{Name: name, Value: value, Unit: unit, Want: fmt.Sprintf(">= %g", limit), OK: value >= limit}
}

// AtMost returns a bar that value must not be above.
func AtMost(name string, value float64, unit string, limit float64) Bar {
	return Bar{Name: name, Value: value, Unit: unit, Want: fmt.Sprintf("<= %g", limit), OK: value <= limit}
}

// Main runs what the arguments ask for and returns the exit code: 0, 1 when a bar is not met or an
// experiment fails, 2 for wrong usage.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer, experiments ...Experiment) int {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	asJSON := flags.Bool("json", false, "print one JSON object instead of the table")
	plotFile := flags.String("plot", "", "write a plot to this `file` (.png, .svg or .pdf)")
	flags.Usage = func() {
		_, _ = fmt.Fprintln(stderr, "usage: bench NAME|all|list [--json] [--plot FILE]")
		flags.PrintDefaults()
	}
	// The name comes first; flags may stand on either side of it.
	if err := flags.Parse(args); err != nil {
		return 2
	}
	name := flags.Arg(0)
	if flags.NArg() > 0 {
		if err := flags.Parse(flags.Args()[1:]); err != nil {
			return 2
		}
	}
	if name == "" || flags.NArg() > 0 {
		flags.Usage()
		return 2
	}
	switch name {
	case "list":
		for _, e := range experiments {
			_, _ = fmt.Fprintf(stdout, "%-12s %s\n", e.Name, e.Summary)
		}
		return 0
	case "all":
	default:
		experiments = slices.DeleteFunc(slices.Clone(experiments), func(e Experiment) bool { return e.Name != name })
		if len(experiments) == 0 {
			_, _ = fmt.Fprintf(stderr, "bench: there is no experiment %q; `bench list` names them all\n", name)
			return 2
		}
	}
	code := 0
	for _, e := range experiments {
		err := runOne(ctx, e, *asJSON, *plotFile, stdout, stderr)
		var skip *SkipError
		if errors.As(err, &skip) {
			_, _ = fmt.Fprintf(stderr, "bench: %s: %v\n", e.Name, skip)
			continue
		}
		if err != nil {
			_, _ = fmt.Fprintf(stderr, "bench: %s: %v\n", e.Name, err)
			code = 1
		}
	}
	return code
}

var errBar = errors.New("a bar is not met")

func runOne(ctx context.Context, e Experiment, asJSON bool, plotFile string, stdout, stderr io.Writer) error {
	r, err := e.Run(ctx, stderr)
	if err != nil {
		return err
	}
	if asJSON {
		err = r.writeJSON(stdout, e.Name)
	} else {
		err = r.writeTable(stdout, e.Name)
	}
	if err != nil {
		return err
	}
	if plotFile != "" {
		if r.Plot == nil {
			return errors.New("this experiment has no plot")
		}
		if err := r.Plot.Save(plotFile); err != nil {
			return fmt.Errorf("write plot: %w", err)
		}
	}
	for _, b := range r.Bars {
		if !b.OK {
			return errBar
		}
	}
	return nil
}

func (r *Result) writeJSON(w io.Writer, name string) error {
	rows := make([]map[string]any, len(r.Rows))
	for i, row := range r.Rows {
		rows[i] = make(map[string]any, len(row))
		for j, cell := range row {
			rows[i][r.Columns[j]] = cell
		}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(struct {
		Experiment string           `json:"experiment"`
		Machine    string           `json:"machine"`
		Load       string           `json:"load"`
		Rows       []map[string]any `json:"rows"`
		Bars       []Bar            `json:"bars"`
	}{name, Machine(), r.Load, rows, r.Bars})
}

func (r *Result) writeTable(w io.Writer, name string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(t, "%s\nmachine: %s\nload: %s\n\n%s\n", name, Machine(), r.Load, strings.Join(r.Columns, "\t"))
	for _, row := range r.Rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = format(cell)
		}
		_, _ = fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	_, _ = fmt.Fprintln(t, "\nbar\tvalue\twant\t")
	for _, b := range r.Bars {
		verdict := "ok"
		if !b.OK {
			verdict = "NOT MET"
		}
		_, _ = fmt.Fprintf(t, "%s\t%s %s\t%s\t%s\n", b.Name, format(b.Value), b.Unit, b.Want, verdict)
	}
	return t.Flush()
}

func format(cell any) string {
	f, ok := cell.(float64)
	switch {
	case !ok:
		return fmt.Sprint(cell)
	case f >= 1000:
		return fmt.Sprintf("%.0f", f)
	default:
		return fmt.Sprintf("%.3g", f)
	}
}

// Machine describes where the experiment runs.
func Machine() string {
	cpu, memory := "unknown CPU", "unknown memory"
	scan("/proc/cpuinfo", "model name", func(v string) { cpu = v })
	scan("/proc/meminfo", "MemTotal", func(v string) {
		var kib float64
		if _, err := fmt.Sscan(v, &kib); err == nil {
			memory = fmt.Sprintf("%.0f GiB", kib/(1<<20))
		}
	})
	return fmt.Sprintf("%d cores of %s, %s, %s, %s/%s", runtime.NumCPU(), cpu, memory, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// scan calls found with the first value of a key in a file of "key : value" lines.
func scan(file, key string, found func(string)) {
	f, err := os.Open(file)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == key {
			found(strings.TrimSpace(v))
			return
		}
	}
}
