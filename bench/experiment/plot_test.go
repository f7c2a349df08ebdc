// SPDX-License-Identifier: Apache-2.0

package experiment

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPlot(t *testing.T) {
	for name, p := range map[string]Plot{
		"bars":    {Title: "t", Y: "y", Names: []string{"a", "b"}, Values: []float64{1, 2}},
		"grouped": {Names: []string{"a", "b"}, Series: []Series{{Name: "x", Y: []float64{1, 200}}, {Name: "y", Y: []float64{3, 40000}}}, LogY: true},
		"lines":   {X: "x", Series: []Series{{Name: "x", X: []float64{0, 1}, Y: []float64{1, 2}}, {Name: "y", X: []float64{0}, Y: []float64{3}}}},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "p.svg")
			require.NoError(t, p.Save(file))
			b, err := os.ReadFile(file)
			require.NoError(t, err)
			for _, s := range p.Series {
				require.Contains(t, string(b), ">"+s.Name+"<", "the legend")
			}
		})
	}
}
