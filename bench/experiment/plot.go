// SPDX-License-Identifier: Apache-2.0

package experiment

import (
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// Plot is a bar chart of one value for each name, or of one for each name and series; or, without
// names, a line for each series.
type Plot struct {
	Title string
	// X and Y label the axes.
	X, Y string
	// Names are those of the bars.
	Names []string
	// Values are the heights of the bars when there is one series, without a name of its own.
	Values []float64
	// Series are several values for each name, or lines.
	Series []Series
	// LogY makes the vertical axis logarithmic. Bars then begin at 1, and no value may be below.
	LogY bool
	// LegendBottom moves the legend away from what is high.
	LegendBottom bool
}

// Series are the bars of one colour, or a line.
type Series struct {
	Name string
	// X are the places of a line's points; nil for bars.
	X []float64
	// Y are the heights.
	Y []float64
}

var colors = []color.Color{
	color.RGBA{R: 0x2f, G: 0x6f, B: 0xb0, A: 0xff},
	color.RGBA{R: 0xe0, G: 0x8a, B: 0x2c, A: 0xff},
	color.RGBA{R: 0x4d, G: 0x9a, B: 0x56, A: 0xff},
	color.RGBA{R: 0xb0, G: 0x3a, B: 0x48, A: 0xff},
	color.RGBA{R: 0x75, G: 0x5c, B: 0xa6, A: 0xff},
	color.RGBA{R: 0x6b, G: 0x6b, B: 0x6b, A: 0xff},
}

// Save writes the plot; the file's ending says in which format.
func (p *Plot) Save(file string) error {
	canvas := plot.New()
	canvas.Title.Text, canvas.X.Label.Text, canvas.Y.Label.Text = p.Title, p.X, p.Y
	canvas.Legend.Top = !p.LegendBottom
	if p.LogY {
		canvas.Y.Scale, canvas.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	} else {
		canvas.Y.Min = 0
	}
	series := p.Series
	if p.Values != nil {
		series = []Series{{Y: p.Values}}
	}
	draw := p.lines
	width := 16 * vg.Centimeter
	if p.Names != nil {
		draw = p.bars
		width = vg.Length(len(p.Names))*3.5*vg.Centimeter + 3*vg.Centimeter
		canvas.NominalX(p.Names...)
	}
	if err := draw(canvas, series); err != nil {
		return err
	}
	return canvas.Save(width, 10*vg.Centimeter, file)
}

// bars draws the series beside each other at each name.
func (p *Plot) bars(canvas *plot.Plot, series []Series) error {
	width := min(vg.Points(28), 2.8*vg.Centimeter/vg.Length(len(series)))
	for i, s := range series {
		heights := slices.Clone(s.Y)
		ground := make(plotter.Values, len(heights))
		if p.LogY { // There is no zero to stand on.
			for j := range heights {
				ground[j], heights[j] = 1, heights[j]-1
			}
		}
		below, err := plotter.NewBarChart(ground, width)
		if err != nil {
			return err
		}
		bars, err := plotter.NewBarChart(plotter.Values(heights), width)
		if err != nil {
			return err
		}
		bars.StackOn(below)
		bars.Color, bars.LineStyle.Width = colors[i%len(colors)], 0
		bars.Offset = width * vg.Length(float64(i)-float64(len(series)-1)/2)
		canvas.Add(bars)
		if s.Name != "" {
			canvas.Legend.Add(s.Name, bars)
		}
	}
	return nil
}

// lines draws each series as a line with a mark at each point.
func (p *Plot) lines(canvas *plot.Plot, series []Series) error {
	for i, s := range series {
		points := make(plotter.XYs, len(s.Y))
		for j := range points {
			points[j].X, points[j].Y = s.X[j], s.Y[j]
		}
		line, marks, err := plotter.NewLinePoints(points)
		if err != nil {
			return err
		}
		line.Color, marks.Color = colors[i%len(colors)], colors[i%len(colors)]
		line.Width = vg.Points(1.5)
		canvas.Add(line, marks)
		canvas.Legend.Add(s.Name, line, marks)
	}
	return nil
}
