// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// limitFlags are limits as flags; nil is what is not given.
type limitFlags struct {
	RateLimit      *float64 `placeholder:"N" help:"Queries a second that are let in, on each frontend; 0 is no limit."`
	RateBurst      *uint32  `placeholder:"N" help:"Queries that may come at once, after a pause. Default: those of one second."`
	MaxConcurrency *uint32  `placeholder:"N" help:"Queries that may be in flight at once, on each frontend; 0 is no limit."`
}

// limits returns old with what the flags say, and whether they say anything.
func (f *limitFlags) limits(old *clipperv1.Limits) (*clipperv1.Limits, bool) {
	if f.RateLimit == nil && f.RateBurst == nil && f.MaxConcurrency == nil {
		return old, false
	}
	l := &clipperv1.Limits{}
	if old != nil {
		l = proto.CloneOf(old)
	}
	if f.RateLimit != nil {
		if l.QueriesPerSecond = *f.RateLimit; l.QueriesPerSecond == 0 {
			l.Burst = 0 // It is that of a rate.
		}
	}
	if f.RateBurst != nil {
		l.Burst = *f.RateBurst
	}
	if f.MaxConcurrency != nil {
		l.Concurrency = *f.MaxConcurrency
	}
	if proto.Equal(l, &clipperv1.Limits{}) {
		return nil, true
	}
	return l, true
}

func (f *limitFlags) changeLimits(app *clipperv1.Application, changed map[string]bool) error {
	if l, given := f.limits(app.Limits); given {
		app.Limits, changed["limits"] = l, true
	}
	return nil
}

// limitsText says limits in words; empty for none.
func limitsText(l *clipperv1.Limits) string {
	var parts []string
	if r := l.GetQueriesPerSecond(); r > 0 {
		text := strconv.FormatFloat(r, 'g', -1, 64) + "/s"
		if l.GetBurst() > 0 {
			text += " (burst " + strconv.FormatUint(uint64(l.GetBurst()), 10) + ")"
		}
		parts = append(parts, text)
	}
	if n := l.GetConcurrency(); n > 0 {
		parts = append(parts, strconv.FormatUint(uint64(n), 10)+" in flight")
	}
	return strings.Join(parts, ", ")
}
