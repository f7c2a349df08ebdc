// SPDX-License-Identifier: Apache-2.0

package cost

import (
	"strings"
	"time"

	"github.com/google/pprof/profile"
)

// part is who spends processor time.
type part int

const (
	layerPart part = iota
	runtimePart
	containerPart
	generatorPart
)

// partLabel is the label that goroutines of a part carry.
const partLabel = "part"

const module = "github.com/clipper-serving/clipper/"

func (p part) String() string {
	return [...]string{"layer", "runtime, unlabelled", "container", "generator"}[p]
}

// shares is how the processor time of some queries divides.
type shares struct {
	raw     []byte
	queries int64
	spent   map[part]time.Duration
}

// perQuery returns microseconds.
func (s *shares) perQuery(p part) float64 {
	return float64(s.spent[p].Nanoseconds()) / 1e3 / float64(s.queries)
}

// readProfile divides a CPU profile.
func readProfile(raw []byte, queries int64) (shares, error) {
	s := shares{raw: raw, queries: queries, spent: map[part]time.Duration{}}
	p, err := profile.ParseData(raw)
	if err != nil {
		return s, err
	}
	for _, sample := range p.Sample {
		// The second value is nanoseconds.
		s.spent[partOf(sample)] += time.Duration(sample.Value[1])
	}
	return s, nil
}

// partOf says whose a sample is: the innermost function of Clipper decides, or else the label.
func partOf(s *profile.Sample) part {
	for _, location := range s.Location { // From the innermost.
		for _, line := range location.Line {
			name, ours := strings.CutPrefix(line.Function.Name, module)
			switch {
			case !ours:
			case strings.HasPrefix(name, "bench/"):
				return generatorPart
			case strings.HasPrefix(name, "containerrpc/"):
				return containerPart
			case strings.HasPrefix(name, "abstraction/"):
				return layerPart
			}
		}
	}
	switch labels := s.Label[partLabel]; {
	case len(labels) == 0:
		return runtimePart
	case labels[0] == containerPart.String():
		return containerPart
	}
	return layerPart
}
