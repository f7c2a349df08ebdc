// SPDX-License-Identifier: Apache-2.0

package policy

import "math"

// Measure is how a prediction is compared with the truth.
type Measure uint8

// The measures. Without one, labels are compared by ZeroOne, numbers by Absolute, and scores by ZeroOne when
// the truth is a class and by Absolute when it is a list.
const (
	// ZeroOne is 0 when the label, or the class of the largest score, is the true one, else 1.
	ZeroOne Measure = iota + 1
	// Absolute is the absolute error of a number divided by the range; of scores, half the sum of the
	// absolute differences to the true list, or to the list that is 1 at the true class and 0 elsewhere.
	Absolute
	// Log is the negative natural logarithm of the true class's score, at most 1. A true list weighs the
	// logarithms of all. Scores that are no probabilities have the loss 1.
	Log
)

// Allows reports whether a measure is for a kind of answers.
func (m Measure) Allows(k Kind) bool {
	switch m {
	case ZeroOne:
		return k == Label || k == Scores
	case Absolute:
		return k == Number || k == Scores
	case Log:
		return k == Scores
	}
	return m == 0
}

// Loss returns how wrong a prediction is, in [0, 1], by the task's measure. It returns Unknown when the two cannot
// be compared, which is when one is missing, lists differ in length, or of a list only the largest
// score's class is known and the measure needs the others.
func (t Task) Loss(truth, prediction Value) float64 {
	if truth.form == missing || prediction.form == missing {
		return Unknown
	}
	switch t.Kind {
	case Label:
		return zeroOne(truth.Equal(prediction))
	case Number:
		if truth.form != number || prediction.form != number {
			return Unknown
		}
		return t.distance(truth.number, prediction.number)
	case Scores:
		return t.lossOfScores(truth, prediction)
	}
	return Unknown
}

func (t Task) lossOfScores(truth, prediction Value) float64 {
	measure := t.Measure
	if measure == 0 {
		measure = ZeroOne
		if truth.form == scores {
			measure = Absolute
		}
	}
	if measure == ZeroOne {
		class, known := prediction.Class()
		right, ok := truth.Class()
		if truth.form == integer {
			right, ok = int(truth.integer), true
		}
		if !ok || !known || truth.form == scores && prediction.form == scores && len(truth.scores) != len(prediction.scores) {
			return Unknown
		}
		return zeroOne(right == class)
	}
	list := prediction.scores
	switch {
	case prediction.form != scores:
		return Unknown
	case truth.form == scores && len(truth.scores) != len(list):
		return Unknown
	case truth.form != scores && (truth.form != integer || truth.integer < 0 || truth.integer >= int64(len(list))):
		return Unknown
	case measure == Log && !probabilities(list):
		return 1
	}
	sum := 0.0
	for i, x := range list {
		right := 0.0
		if truth.form == scores {
			right = truth.scores[i]
		} else if truth.integer == int64(i) {
			right = 1
		}
		switch {
		case measure == Absolute:
			sum += math.Abs(right-x) / 2
		case right > 0: // The logarithm of 0 is of no account where the truth is 0.
			sum -= right * math.Log(min(max(x, 0), 1))
		}
	}
	return min(sum, 1)
}

// probabilities reports whether scores are at least 0 and sum to 1, but for the rounding of small floats.
func probabilities(list []float64) bool {
	const rounding = 0.005
	sum := 0.0
	for _, x := range list {
		if x < -rounding {
			return false
		}
		sum += x
	}
	return math.Abs(sum-1) <= rounding
}

// distance is the absolute difference as a share of the range.
func (t Task) distance(a, b float64) float64 {
	d := math.Abs(a-b) / (t.Max - t.Min)
	if !(d < 1) { // The difference may overflow.
		return 1
	}
	return d
}

func zeroOne(right bool) float64 {
	if right {
		return 0
	}
	return 1
}
