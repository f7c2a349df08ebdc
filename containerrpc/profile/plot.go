// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// axes place points on logarithmic axes, from 0 at the lower left to 1.
type axes struct{ left, right, bottom, top float64 }

// axes returns those of the profile; false when there is no curve to draw.
func (p *Profile) axes() (axes, bool) {
	points := p.good()
	if len(points) < 2 {
		return axes{}, false
	}
	a := axes{1, float64(points[len(points)-1].Rows), math.Inf(1), 0}
	for _, q := range points {
		fitted := p.Line.At(float64(q.Rows))
		a.bottom, a.top = min(a.bottom, q.MedianMicros, fitted), max(a.top, q.P99Micros, fitted)
	}
	a.bottom, a.top = a.bottom/1.1, a.top*1.1
	return a, true
}

func (a axes) x(rows float64) float64 { return math.Log(rows/a.left) / math.Log(a.right/a.left) }
func (a axes) y(us float64) float64   { return math.Log(us/a.bottom) / math.Log(a.top/a.bottom) }

// rows is the inverse of x.
func (a axes) rows(x float64) float64 { return a.left * math.Pow(a.right/a.left, x) }

// ticks are the round times on the vertical axis.
func (a axes) ticks() []float64 {
	var all []float64
	for decade := math.Pow(10, math.Floor(math.Log10(a.bottom))); decade <= a.top; decade *= 10 {
		for _, step := range []float64{1, 2, 5} {
			if t := step * decade; t >= a.bottom && t <= a.top {
				all = append(all, t)
			}
		}
	}
	if len(all) < 2 { // It is flat.
		return []float64{a.bottom * 1.1, a.top / 1.1}
	}
	return all
}

// Text draws the profile in so many columns and lines of plain text, axes included; "" when there are
// less than two sizes.
func (p *Profile) Text(width, height int) string {
	const margin = 8 // What the labels of the vertical axis take.
	a, drawn := p.axes()
	if !drawn {
		return ""
	}
	columns, lines := width-margin-2, height-3
	grid := make([][]rune, lines)
	for i := range grid {
		grid[i] = []rune(strings.Repeat(" ", columns))
	}
	column := func(rows float64) int { return int(math.Round(a.x(rows) * float64(columns-1))) }
	line := func(us float64) int { return lines - 1 - int(math.Round(a.y(us)*float64(lines-1))) }
	for c := range columns {
		grid[line(p.Line.At(a.rows(float64(c)/float64(columns-1))))][c] = '.'
	}
	for _, q := range p.good() {
		grid[line(q.P99Micros)][column(float64(q.Rows))] = '+'
		grid[line(q.MedianMicros)][column(float64(q.Rows))] = 'o'
	}
	labels := make([]string, lines)
	for _, t := range a.ticks() {
		labels[line(t)] = Micros(t)
	}
	var b strings.Builder
	for i, row := range grid {
		fmt.Fprintf(&b, "%*s |%s\n", margin, labels[i], strings.TrimRight(string(row), " "))
	}
	below := []byte(strings.Repeat(" ", columns))
	free := columns + 1
	for _, q := range slices.Backward(p.good()) { // The largest size has its label in any case.
		label := strconv.Itoa(q.Rows)
		if c := min(column(float64(q.Rows)), columns-len(label)); c+len(label) < free {
			copy(below[c:], label)
			free = c
		}
	}
	fmt.Fprintf(&b, "%*s +%s\n%*s  %s\n", margin, "", strings.Repeat("-", columns), margin, "", bytes.TrimRight(below, " "))
	fmt.Fprintf(&b, "%*s  rows of a batch: o median, + 99%%, . the line\n", margin, "")
	return b.String()
}

// SVG draws the profile as an image; nil when there are less than two sizes.
func (p *Profile) SVG(title string) []byte {
	const width, height, left, right, top, bottom = 720.0, 440.0, 70.0, 20.0, 50.0, 50.0
	a, drawn := p.axes()
	if !drawn {
		return nil
	}
	x := func(rows float64) float64 { return left + a.x(rows)*(width-left-right) }
	y := func(us float64) float64 { return height - bottom - a.y(us)*(height-top-bottom) }
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%g" height="%g" fill="white"/>`+"\n", width, height)
	text := func(x, y float64, anchor, s string) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", x, y, anchor, html.EscapeString(s))
	}
	text(left, 20, "start", title)
	text(left, 38, "start", fmt.Sprintf("circles: median; upper line: 99%%; dashes: %s", p.Line))
	for _, t := range a.ticks() {
		fmt.Fprintf(&b, `<path d="M%.1f %.1fH%.1f" stroke="#ddd"/>`+"\n", left, y(t), width-right)
		text(left-6, y(t)+4, "end", Micros(t))
	}
	curve := func(style string, from []Point, of func(Point) float64) {
		fmt.Fprintf(&b, `<polyline fill="none" %s points="`, style)
		for _, q := range from {
			fmt.Fprintf(&b, "%.1f,%.1f ", x(float64(q.Rows)), y(of(q)))
		}
		b.WriteString("\"/>\n")
	}
	var fine []Point // On logarithmic axes the line is bent.
	for i := range 101 {
		fine = append(fine, Point{Rows: int(math.Round(a.rows(float64(i) / 100)))})
	}
	curve(`stroke="#6b6b6b" stroke-dasharray="4 3"`, fine, func(q Point) float64 { return p.Line.At(float64(q.Rows)) })
	curve(`stroke="#e08a2c"`, p.good(), func(q Point) float64 { return q.P99Micros })
	free := 0.0
	for _, q := range p.good() {
		fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="#2f6fb0"/>`+"\n", x(float64(q.Rows)), y(q.MedianMicros))
		if label := strconv.Itoa(q.Rows); x(float64(q.Rows)) >= free {
			text(x(float64(q.Rows)), height-bottom+18, "middle", label)
			free = x(float64(q.Rows)) + 8*float64(len(label)) + 12
		}
	}
	text((left+width-right)/2, height-10, "middle", "rows of a batch")
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// String says what the line is.
func (l Line) String() string {
	return fmt.Sprintf("a batch takes %s + %s for each row", Micros(l.FixedMicros), Micros(l.RowMicros))
}

// Micros writes a number of microseconds as a time of three digits.
func Micros(us float64) string {
	if us <= 0 {
		return "0s"
	}
	digit := math.Pow(10, math.Floor(math.Log10(us))-2)
	return time.Duration(math.Round(us/digit) * digit * float64(time.Microsecond)).Round(time.Nanosecond).String()
}
