// SPDX-License-Identifier: Apache-2.0

package policy

// Decided reports whether what [Vote] makes of the predictions is the answer whatever the models say
// that have not answered yet, or if they never do: the same value, on the same side of the threshold.
// pending says for each choice whether it may still come; a prediction that is neither there nor
// pending will not. weights, choices and predictions are as for Vote.
//
// Labels are decided when the leading label beats every other one even if all that is pending says that
// one, or says one that nobody has said yet, which may be the smallest and so win a tie; and when the
// confidence, which what is pending can only raise, has reached the threshold. They are also decided
// when no label can reach the threshold any more, so that the default output is certain.
//
// Numbers and scores are decided when nothing is pending: every weight moves an average, and a bound
// on how far would make the answer depend on who was first.
func Decided(t Task, threshold float64, weights []float64, choices []Choice, predictions []Value, pending []bool) bool {
	asked, arrived, open := 0.0, 0.0, 0.0
	none := true
	for i, c := range choices {
		w := weights[c.Model]
		asked += w
		switch {
		case pending[i]:
			open += w
			none = false
		case !predictions[i].Missing():
			arrived += w
		}
	}
	if none {
		return true
	}
	// The leading label has at most what has arrived, and must have more than what is open.
	if t.Kind != Label || arrived <= open {
		return false
	}
	// sums returns the weight of a label as Vote adds it up: of those who have said it, and if all who
	// are pending say it too. Rounding keeps the order of sums of which one has more terms, so what is
	// compared below is exact.
	sums := func(v Value) (least, most float64) {
		for i, c := range choices {
			switch w := weights[c.Model]; {
			case pending[i]:
				most += w
			case predictions[i].Equal(v):
				least += w
				most += w
			}
		}
		return least, most
	}
	var leader Value
	lead, reach := 0.0, 0.0
	for i, v := range predictions {
		if pending[i] || v.Missing() {
			continue
		}
		least, most := sums(v)
		reach = max(reach, most)
		if leader.Missing() || least > lead || (least == lead && v.compare(leader) < 0) {
			leader, lead = v, least
		}
	}
	// The confidence is a quotient of such sums; margin is far more than its rounding.
	const margin = 1e-9
	if reach < (threshold-margin)*asked {
		return true
	}
	if lead <= open || threshold > 0 && lead < (threshold+margin)*asked {
		return false
	}
	for i, v := range predictions {
		if pending[i] || v.Missing() || v.Equal(leader) {
			continue
		}
		if _, most := sums(v); most > lead || (most == lead && v.compare(leader) < 0) {
			return false
		}
	}
	return true
}
