// SPDX-License-Identifier: Apache-2.0

// Package page draws the report of a load as one HTML file that refers to nothing outside itself.
package page

import (
	"bytes"
	_ "embed" // The template.
	"fmt"
	"html/template"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/clipper-serving/clipper/internal/loadgen"
)

//go:embed page.html
var source string

// parsed is the template. Values are escaped; only the charts, which are made of numbers and of names that
// are constant here, are markup.
var parsed = template.Must(template.New("page").Funcs(template.FuncMap{
	"ms":      loadgen.Milliseconds,
	"number":  func(x float64) string { return fmt.Sprintf("%.6g", x) },
	"reasons": func(m map[string]int) []string { return slices.Sorted(maps.Keys(m)) },
	"figure": func(x float64, unit string) string {
		if unit == "ms" {
			return loadgen.Milliseconds(x)
		}
		return fmt.Sprintf("%.4g%s", x, unit)
	},
}).Parse(source))

// Render returns the page of a report.
func Render(r *loadgen.Report) ([]byte, error) {
	var b bytes.Buffer
	err := parsed.Execute(&b, map[string]any{
		"R": r, "Rates": rates(r), "Latencies": latencies(r), "Distribution": distribution(r),
	})
	return b.Bytes(), err
}

func seconds(x float64) string { return fmt.Sprintf("%gs", math.Round(100*x)/100) }

func rates(r *loadgen.Report) template.HTML {
	of := func(name, class string, value func(*loadgen.Point) float64) series {
		return overTime(r, name, class, value)
	}
	return chart{
		label: "Queries per second over time", x: linear{tick: seconds}, y: linear{tick: func(y float64) string { return fmt.Sprintf("%g", y) }},
		series: []series{
			of("asked", "a dashed", func(p *loadgen.Point) float64 { return p.Rates.Asked }),
			of("answered", "b", func(p *loadgen.Point) float64 { return p.Rates.Answered }),
			of("defaults", "c", func(p *loadgen.Point) float64 { return p.Defaults }),
			of("errors", "d", func(p *loadgen.Point) float64 { return p.Errors }),
		},
	}.svg()
}

func latencies(r *loadgen.Report) template.HTML {
	return chart{
		label: "Latency by the time at which queries were due", x: linear{tick: seconds}, y: logarithmic{},
		series: []series{
			overTime(r, "median", "b", func(p *loadgen.Point) float64 { return p.P50 }),
			overTime(r, "99%", "c", func(p *loadgen.Point) float64 { return p.P99 }),
			overTime(r, "max", "d", func(p *loadgen.Point) float64 { return p.Max }),
		},
	}.svg()
}

func overTime(r *loadgen.Report, name, class string, value func(*loadgen.Point) float64) series {
	s := series{name: name, class: class}
	for i := range r.Timeline {
		p := &r.Timeline[i]
		s.points = append(s.points, point{p.Seconds + r.Interval/2, value(p)})
	}
	return s
}

func distribution(r *loadgen.Report) template.HTML {
	all := []series{byNines("this run", "b", r.Distribution)}
	if r.Comparison != nil {
		all = append(all, byNines("before", "a dashed", r.Comparison.Distribution))
	}
	return chart{label: "Latency by percentile", x: linear{tick: percent}, y: logarithmic{}, series: all}.svg()
}

// byNines places percentiles by the number of their nines, so that the tail has room.
func byNines(name, class string, curve []loadgen.Quantile) series {
	s := series{name: name, class: class}
	for _, q := range curve {
		if q.Percent < 100 {
			s.points = append(s.points, point{-math.Log10(1 - q.Percent/100), q.Latency})
		}
	}
	return s
}

// percent is the percentile of so many nines.
func percent(nines float64) string {
	if nines != math.Trunc(nines) {
		return ""
	}
	decimals := max(0, int(nines)-2)
	return fmt.Sprintf("%.*f%%", decimals, 100*(1-math.Pow(10, -nines)))
}

// point is a place in a chart, in its own units.
type point struct{ x, y float64 }

// series is a line of a chart; class is its colour and kind.
type series struct {
	name, class string
	points      []point
}

// scale places values on an axis from low to high.
type scale interface {
	// fit returns the ends of the axis for values from low to high, and the values that are marked.
	fit(low, high float64) (from, to float64, ticks []float64)
	place(v, from, to float64) float64
	text(v float64) string
}

// linear is an even scale from 0.
type linear struct{ tick func(float64) string }

func (l linear) text(v float64) string { return l.tick(v) }

func (linear) place(v, from, to float64) float64 { return (v - from) / (to - from) }

func (linear) fit(_, high float64) (from, to float64, ticks []float64) {
	if high <= 0 {
		high = 1
	}
	step := math.Pow(10, math.Floor(math.Log10(high)))
	for _, finer := range []float64{2, 2.5, 2} {
		if high/step >= 4 {
			break
		}
		step /= finer
	}
	for k := 0; float64(k)*step <= high*1.0001; k++ {
		ticks = append(ticks, float64(k)*step)
	}
	return 0, high, ticks
}

// logarithmic is a scale of milliseconds by powers.
type logarithmic struct{}

func (logarithmic) text(v float64) string { return loadgen.Milliseconds(v) }

func (logarithmic) place(v, from, to float64) float64 {
	return math.Log(max(v, from)/from) / math.Log(to/from)
}

func (logarithmic) fit(low, high float64) (from, to float64, ticks []float64) {
	if low <= 0 || high <= 0 {
		low, high = 0.1, 10
	}
	from, to = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high*1.001)))
	for decade := from; decade <= to*1.001; decade *= 10 {
		ticks = append(ticks, decade)
	}
	return from, to, ticks
}

// chart is lines over two axes.
type chart struct {
	label  string
	x, y   scale
	series []series
}

const (
	width, height         = 860, 280
	left, right, top, low = 64, 28, 12, 28
)

// svg draws the chart. Colours are the page's.
func (c chart) svg() template.HTML {
	xLow, xHigh, yLow, yHigh := math.Inf(1), 0.0, math.Inf(1), 0.0
	for _, s := range c.series {
		for _, p := range s.points {
			xLow, xHigh, yHigh = min(xLow, p.x), max(xHigh, p.x), max(yHigh, p.y)
			if p.y > 0 {
				yLow = min(yLow, p.y)
			}
		}
	}
	if math.IsInf(yLow, 1) {
		yLow = 0
	}
	x0, x1, xTicks := c.x.fit(xLow, xHigh)
	y0, y1, yTicks := c.y.fit(yLow, yHigh)
	atX := func(x float64) float64 { return left + (width-left-right)*c.x.place(x, x0, x1) }
	atY := func(y float64) float64 { return height - low - (height-top-low)*c.y.place(y, y0, y1) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s">`, width, height, template.HTMLEscapeString(c.label))
	for _, t := range yTicks {
		fmt.Fprintf(&b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text class="y" x="%d" y="%.1f">%s</text>`,
			left, width-right, atY(t), atY(t), left-8, atY(t)+4, c.y.text(t))
	}
	for _, t := range xTicks {
		if text := c.x.text(t); text != "" {
			fmt.Fprintf(&b, `<text class="x" x="%.1f" y="%d">%s</text>`, atX(t), height-8, text)
		}
	}
	_, gaps := c.y.(logarithmic) // 0 is where nothing was due.
	for _, s := range c.series {
		fmt.Fprintf(&b, `<polyline class="%s" points="`, s.class)
		for _, p := range s.points {
			if p.y > 0 || !gaps {
				fmt.Fprintf(&b, "%.1f,%.1f ", atX(p.x), atY(p.y))
			}
		}
		b.WriteString(`"/>`)
	}
	b.WriteString(`</svg><p class="legend">`)
	for _, s := range c.series {
		fmt.Fprintf(&b, `<span class="%s"></span>%s `, s.class, s.name)
	}
	b.WriteString(`</p>`)
	return template.HTML(b.String()) //nolint:gosec // Numbers and constants.
}
