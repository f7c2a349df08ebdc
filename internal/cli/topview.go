// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/clipper-serving/clipper/internal/top"
)

// column is a column of the table of models.
type column struct {
	name    string
	cell    func(m *top.Model) string
	compare func(a, b *top.Model) int // in the order that is of interest: large numbers first
}

func byText(f func(m *top.Model) string) func(a, b *top.Model) int {
	return func(a, b *top.Model) int { return cmp.Compare(f(a), f(b)) }
}

func byNumber(f func(m *top.Model) *float64) func(a, b *top.Model) int {
	number := func(m *top.Model) float64 {
		if n := f(m); n != nil {
			return *n
		}
		return -1
	}
	return func(a, b *top.Model) int { return cmp.Compare(number(b), number(a)) }
}

func numbers(name string, f func(m *top.Model) *float64) column {
	return column{name, func(m *top.Model) string { return figure(f(m)) }, byNumber(f)}
}

var modelColumns = func() []column {
	name := func(m *top.Model) string { return m.Model + ":" + m.Version }
	state := func(m *top.Model) string {
		if m.Overloaded {
			return "overloaded"
		}
		return m.State
	}
	rows := func(n *uint32) *float64 {
		if n == nil {
			return nil
		}
		f := float64(*n)
		return &f
	}
	queue := func(m *top.Model) *float64 { return rows(m.QueueRows) }
	return []column{
		{"MODEL", func(m *top.Model) string { return name(m) + map[bool]string{true: "*"}[m.Current] }, byText(name)},
		{"STATE", state, byText(state)},
		{"READY", func(m *top.Model) string { return fmt.Sprintf("%d/%d", m.Ready, m.Wanted) }, func(a, b *top.Model) int { return cmp.Compare(b.Wanted, a.Wanted) }},
		numbers("QUEUE", queue),
		numbers("BATCH", func(m *top.Model) *float64 { return m.BatchRows }),
		numbers("ROWS/S", func(m *top.Model) *float64 { return m.RowsPerSecond }),
		numbers("P50", func(m *top.Model) *float64 { return m.P50 }),
		numbers("P99", func(m *top.Model) *float64 { return m.P99 }),
		{"CACHE", func(m *top.Model) string { return share(m.CacheHitRate) }, byNumber(func(m *top.Model) *float64 { return m.CacheHitRate })},
		numbers("DROP/S", func(m *top.Model) *float64 { return m.DroppedPerSecond }),
	}
}()

// order is how models are sorted.
type order struct {
	column   int
	reversed bool
}

func (o order) sort(models []top.Model) []top.Model {
	models = slices.Clone(models)
	slices.SortStableFunc(models, func(a, b top.Model) int {
		c := modelColumns[o.column].compare(&a, &b)
		if o.reversed {
			return -c
		}
		return c
	})
	return models
}

// figure writes a number with three digits that count; "-" for what is not known.
func figure(n *float64) string {
	switch {
	case n == nil:
		return "-"
	case *n >= 1e6:
		return strconv.FormatFloat(*n/1e6, 'f', 2, 64) + "M"
	case *n >= 1e4:
		return strconv.FormatFloat(*n/1e3, 'f', 1, 64) + "k"
	case *n >= 100 || *n == float64(int(*n)):
		return strconv.FormatFloat(*n, 'f', 0, 64)
	case *n >= 10:
		return strconv.FormatFloat(*n, 'f', 1, 64)
	}
	return strconv.FormatFloat(*n, 'f', 2, 64)
}

// share writes a share in percent. What is not whole does not look so.
func share(n *float64) string {
	switch {
	case n == nil:
		return "-"
	case *n < 1 && *n >= .9995:
		return "99.9%"
	}
	return strings.TrimSuffix(strconv.FormatFloat(100**n, 'f', 1, 64), ".0") + "%"
}

// frame returns what is to be seen, in lines of as many characters as they need.
func frame(s *top.Snapshot, o order, colored bool) string {
	var b strings.Builder
	ready := 0
	for _, m := range s.Models {
		if m.State == "ready" {
			ready++
		}
	}
	over := "no rates yet"
	if s.Seconds > 0 {
		over = fmt.Sprintf("rates over %.1f s", s.Seconds)
	}
	fmt.Fprintf(&b, "clipper top %s  %d of %d versions ready, %d applications, %s\n", s.Time.Format("15:04:05"), ready, len(s.Models), len(s.Applications), over)
	for _, note := range s.Notes {
		b.WriteString("! " + note + "\n")
	}
	b.WriteByte('\n')
	models := &table{state: 1}
	for i, c := range modelColumns {
		name := c.name
		if i == o.column {
			name += map[bool]string{false: "▾", true: "▴"}[o.reversed]
		}
		models.header = append(models.header, name)
	}
	for _, m := range o.sort(s.Models) {
		var cells []string
		for _, c := range modelColumns {
			cells = append(cells, c.cell(&m))
		}
		models.add(cells...)
	}
	if len(s.Models) == 0 {
		b.WriteString("No models. `clipper model deploy --help` says how to deploy one.\n")
	} else {
		_ = models.write(&b, colored) // A builder takes everything.
	}
	for _, m := range o.sort(s.Models) {
		if m.Ready < m.Wanted {
			fmt.Fprintf(&b, "! %s:%s: %s\n", m.Model, m.Version, replicaStates(m.Replicas))
		}
	}
	if len(s.Applications) == 0 {
		return b.String()
	}
	b.WriteByte('\n')
	t := &table{header: []string{"APPLICATION", "QUERY/S", "P50", "P99", "SLO", "IN TIME", "DEFAULT", "REFUSED", "WEIGHTS"}}
	for _, a := range s.Applications {
		policy := a.Policy
		for i, w := range a.Weights {
			policy += map[bool]string{true: ": ", false: " "}[i == 0] + w.Model + " " + strconv.FormatFloat(w.Weight, 'f', 2, 64)
		}
		t.add(a.Application, figure(a.QueriesPerSecond), figure(a.P50), figure(a.P99), figure(&a.Objective),
			share(a.InTime), share(a.DefaultRate), figure(a.RefusedPerSecond), policy)
	}
	_ = t.write(&b, colored)
	b.WriteString("\nTimes in milliseconds; those of models are a batch's.\n")
	return b.String()
}

// replicaStates counts replicas by state.
func replicaStates(replicas []top.Replica) string {
	counts := map[string]int{}
	restarts := 0
	for _, r := range replicas {
		counts[r.State]++
		restarts += r.Restarts
	}
	var parts []string
	for _, state := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[state], state))
	}
	if restarts > 0 {
		parts = append(parts, fmt.Sprintf("restarted %d times", restarts))
	}
	if len(parts) == 0 {
		return "no replica yet"
	}
	return strings.Join(parts, ", ")
}

// View implements tea.Model. Bubbletea cuts lines at the width of the terminal.
func (v *topView) View() tea.View { return tea.View{Content: v.content(), AltScreen: true} }

func (v *topView) content() string {
	if v.snapshot == nil {
		return "clipper top: reading..."
	}
	text := frame(v.snapshot, v.order, v.colored)
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	foot := "q quit  s sort  r reverse  ↑↓ scroll  p pause"
	switch {
	case v.problem != nil:
		foot = "! " + describe(v.problem).Message
	case v.paused:
		foot = "paused: p goes on  q quit"
	}
	if v.height > 0 {
		fits := max(v.height-1, 1)
		v.offset = max(min(v.offset, len(lines)-fits), 0)
		lines = lines[v.offset:min(v.offset+fits, len(lines))]
	}
	return strings.Join(append(lines, foot), "\n")
}
