// SPDX-License-Identifier: Apache-2.0

package policy

// Vote combines predictions by weight: labels by weighted vote, numbers and scores by weighted
// average. weights has one element for each model of the state; predictions are in the order of the
// choices. Of labels with the same weight the smallest wins, so that the order of the models does
// not matter. Scores are appended to dst; lists that are not as long as the first count as missing.
//
// The confidence is the agreement with the answer times the share that answered of the weight that was
// asked. The agreement of labels is the share of the weight that has the answer's label; of scores,
// that has its largest score in the answer's class; of numbers, 1 less the weighted mean of the
// distances to the answer, as shares of the range.
func Vote(t Task, weights []float64, choices []Choice, predictions []Value, dst []float64) Combined {
	var buffer [MaxModels]float64
	w := buffer[:len(choices)]
	asked, arrived := 0.0, 0.0
	length := -1
	for i, c := range choices {
		w[i] = weights[c.Model]
		asked += w[i]
		if t.Kind == Scores {
			if v := predictions[i].scores; length < 0 && len(v) > 0 {
				length = len(v)
			} else if len(v) != length {
				continue
			}
		}
		if !predictions[i].Missing() {
			arrived += w[i]
		}
	}
	usable := func(i int) bool {
		return !predictions[i].Missing() && (t.Kind != Scores || len(predictions[i].scores) == length)
	}
	if arrived <= 0 { // Nobody who answered has a weight: all that did are equal.
		arrived, asked = 0, 0
		for i := range w {
			w[i] = 1
			asked++
			if usable(i) {
				arrived++
			}
		}
		if arrived == 0 {
			return Combined{}
		}
	}

	var answer Value
	agreement := 0.0
	switch t.Kind {
	case Label:
		best := 0.0
		for i := range predictions {
			if !usable(i) {
				continue
			}
			sum := 0.0
			for j := range predictions {
				if predictions[i].Equal(predictions[j]) {
					sum += w[j]
				}
			}
			if answer.Missing() || sum > best || (sum == best && predictions[i].compare(answer) < 0) {
				answer, best = predictions[i], sum
			}
		}
		agreement = best / arrived
	case Number:
		mean := 0.0
		for i, p := range predictions {
			if usable(i) {
				mean += w[i] / arrived * p.number
			}
		}
		answer = Real(mean)
		agreement = 1
		for i, p := range predictions {
			if usable(i) {
				agreement -= w[i] / arrived * t.distance(p.number, mean)
			}
		}
	case Scores:
		from := len(dst)
		for range length {
			dst = append(dst, 0)
		}
		mean := dst[from:]
		for i, p := range predictions {
			if usable(i) {
				for k, x := range p.scores {
					mean[k] += w[i] / arrived * x
				}
			}
		}
		answer = Vector(mean)
		for i, p := range predictions {
			if usable(i) && t.Agree(answer, p) {
				agreement += w[i] / arrived
			}
		}
	}
	return Combined{Value: answer, Confidence: min(max(agreement*(arrived/asked), 0), 1)}
}
