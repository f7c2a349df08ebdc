// SPDX-License-Identifier: Apache-2.0

package loadgen

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Arrivals is how queries are spread over time. All kinds have the same mean rate.
type Arrivals string

const (
	// Poisson arrivals are independent of each other: those of many users.
	Poisson Arrivals = "poisson"
	// Constant arrivals are evenly spaced.
	Constant Arrivals = "constant"
	// Bursty arrivals are Poisson in phases of 1.8 and 0.2 times the rate, whose lengths are
	// exponential with a mean of 100 ms.
	Bursty Arrivals = "bursty"
)

const (
	burstHigh  = 1.8
	burstLow   = 0.2
	burstPhase = 0.1 // Seconds.
)

// Stage is a part of a run. The rate goes from From to To in a straight line; both are in queries per second.
type Stage struct {
	From, To float64
	Duration time.Duration
}

// String returns the stage as ParseStages reads it.
func (s Stage) String() string {
	if s.From == s.To {
		return fmt.Sprintf("%g@%s", s.From, s.Duration)
	}
	return fmt.Sprintf("%g..%g@%s", s.From, s.To, s.Duration)
}

const maxRate = 1e7

// ParseStages reads stages as in "100", "100,200,400", "100..1000" or "100..1000@1m,1000@10s". Those
// that name no duration share the given one equally.
func ParseStages(text string, shared time.Duration) ([]Stage, error) {
	var stages []Stage
	open := 0
	for part := range strings.SplitSeq(text, ",") {
		rates, length, timed := strings.Cut(strings.TrimSpace(part), "@")
		low, high, ramp := strings.Cut(rates, "..")
		if !ramp {
			high = low
		}
		s := Stage{}
		var errs [3]error
		s.From, errs[0] = strconv.ParseFloat(low, 64)
		s.To, errs[1] = strconv.ParseFloat(high, 64)
		if timed {
			s.Duration, errs[2] = time.ParseDuration(length)
			timed = s.Duration > 0 || errs[2] != nil
			if !timed {
				errs[2] = strconv.ErrRange
			}
		} else {
			open++
		}
		if errs[0] != nil || errs[1] != nil || errs[2] != nil || !(s.From >= 0 && s.To >= 0 && s.From+s.To > 0 && s.From <= maxRate && s.To <= maxRate) {
			return nil, fmt.Errorf("%q is no rate: expected queries per second, at most %g, as in 100, 100..1000 or 100..1000@1m, and commas between stages", part, maxRate)
		}
		stages = append(stages, s)
	}
	for i := range stages {
		if stages[i].Duration == 0 {
			stages[i].Duration = shared / time.Duration(open)
		}
	}
	return stages, nil
}

func total(stages []Stage) (d time.Duration) {
	for _, s := range stages {
		d += s.Duration
	}
	return d
}

// schedule yields the moments of arrival. They come at the events of a process of rate 1 whose clock runs
// at the rate of the moment.
type schedule struct {
	stages   []Stage
	arrivals Arrivals
	random   *rand.Rand
	// stage is the current one, begin the seconds at which it began, at those of the last arrival.
	stage     int
	begin, at float64
	// phase is when the current phase of a burst ends.
	phase float64
	high  bool
	count int
}

func newSchedule(stages []Stage, arrivals Arrivals, seed uint64) *schedule {
	s := &schedule{stages: stages, arrivals: arrivals, random: rand.New(rand.NewPCG(seed, 0)), phase: math.Inf(1)} //nolint:gosec // A simulation.
	if arrivals == Bursty {
		s.phase = 0
	}
	return s
}

// next returns the next arrival since the begin, and false when there is none.
func (s *schedule) next() (time.Duration, bool) {
	// Even arrivals are in the middle of the time that each has.
	left := 1.0
	switch {
	case s.arrivals != Constant:
		left = s.random.ExpFloat64()
	case s.count == 0:
		left = 0.5
	}
	s.count++
	for s.stage < len(s.stages) {
		stage := s.stages[s.stage]
		length := stage.Duration.Seconds()
		end := s.begin + length
		if s.at >= end {
			s.stage, s.begin = s.stage+1, end
			continue
		}
		if s.at >= s.phase {
			s.high = !s.high
			s.phase = s.at + s.random.ExpFloat64()*burstPhase
		}
		factor := 1.0
		if s.arrivals == Bursty {
			if factor = burstLow; s.high {
				factor = burstHigh
			}
		}
		slope := factor * (stage.To - stage.From) / length
		rate := factor*stage.From + slope*(s.at-s.begin)
		until := min(end, s.phase)
		span := until - s.at
		if area := span * (rate + slope*span/2); left > area {
			left -= area
			s.at = until
			continue
		}
		// The smaller root of slope/2 dt² + rate dt = left, in the form that loses no digits.
		s.at += 2 * left / (rate + math.Sqrt(max(0, rate*rate+2*slope*left)))
		return time.Duration(s.at * float64(time.Second)), true
	}
	return 0, false
}

// Moments returns all arrivals of the stages, as times since the begin. The same seed gives the same ones.
func Moments(stages []Stage, a Arrivals, seed uint64) []time.Duration {
	queries := 0.0
	for _, stage := range stages {
		queries += stage.Duration.Seconds() * (stage.From + stage.To) / 2
	}
	all := make([]time.Duration, 0, int(1.1*queries)+16)
	s := newSchedule(stages, a, seed)
	for at, ok := s.next(); ok; at, ok = s.next() {
		all = append(all, at)
	}
	return all
}
