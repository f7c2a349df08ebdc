// SPDX-License-Identifier: Apache-2.0

package experiment

import (
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// Plot is a bar chart of one value for each name.
type Plot struct {
	Title  string
	Y      string
	Names  []string
	Values []float64
}

// Save writes the plot; the file's ending says in which format.
func (p *Plot) Save(file string) error {
	canvas := plot.New()
	canvas.Title.Text = p.Title
	canvas.Y.Label.Text = p.Y
	canvas.Y.Min = 0
	bars, err := plotter.NewBarChart(plotter.Values(p.Values), vg.Points(28))
	if err != nil {
		return err
	}
	bars.Color = color.RGBA{R: 0x2f, G: 0x6f, B: 0xb0, A: 0xff}
	bars.LineStyle.Width = 0
	canvas.Add(bars)
	canvas.NominalX(p.Names...)
	return canvas.Save(vg.Length(len(p.Names))*3.5*vg.Centimeter+3*vg.Centimeter, 10*vg.Centimeter, file)
}
