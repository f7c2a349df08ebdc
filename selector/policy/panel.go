// SPDX-License-Identifier: Apache-2.0

package policy

// Member is a model of a [Panel].
type Member struct {
	// Weight is the initial weight, at least 0.
	Weight float64
	// Group is the name of what the model shares its weight with; empty for a group of its own.
	Group string
	// Shadow is true when the model is asked for the record only.
	Shadow bool
}

// Panel is the models of an application: it adds to any policy what is the same for all, shadow
// models and groups. Immutable, safe for concurrent use.
type Panel struct {
	policy     Policy
	priors     []float64
	shadows    []Choice
	logWeights []bool // which of the policy's statistics are
}

// NewPanel returns a panel of at most MaxModels models. A group has the largest weight of its members, which
// they share in proportion to their own, so that one opinion given twice counts once. ok is false
// when no model has a weight and may answer.
func NewPanel(p Policy, members []Member) (panel *Panel, ok bool) {
	panel = &Panel{policy: p, priors: make([]float64, len(members))}
	for _, name := range p.Statistics() {
		panel.logWeights = append(panel.logWeights, name == LogWeight)
	}
	largest, sum := map[string]float64{}, map[string]float64{}
	for i, m := range members {
		switch {
		case m.Shadow:
			panel.shadows = append(panel.shadows, Choice{Model: i, Propensity: 1, Shadow: true})
		case m.Group != "":
			largest[m.Group] = max(largest[m.Group], m.Weight)
			sum[m.Group] += m.Weight
		}
	}
	total := 0.0
	for i, m := range members {
		switch {
		case m.Shadow || m.Weight <= 0:
			continue
		case m.Group != "":
			panel.priors[i] = m.Weight / sum[m.Group] * largest[m.Group]
		default:
			panel.priors[i] = m.Weight
		}
		total += panel.priors[i]
	}
	if total <= 0 {
		return nil, false
	}
	for i := range panel.priors {
		panel.priors[i] /= total
	}
	return panel, true
}

// Policy returns the panel's policy.
func (p *Panel) Policy() Policy { return p.policy }

// Priors returns the initial weights, which sum to 1. They are shared: do not modify them.
func (p *Panel) Priors() []float64 { return p.priors }

// Select appends what the policy chooses and then the shadow models to dst. answering is how many
// of them the policy chose.
func (p *Panel) Select(s *State, q *Query, dst []Choice) (choices []Choice, answering int) {
	return p.WithShadows(p.policy.Select(s, q, dst))
}

// WithShadows appends the shadow models to what was chosen. answering is how many that were.
func (p *Panel) WithShadows(chosen []Choice) (choices []Choice, answering int) {
	return append(chosen, p.shadows...), len(chosen)
}

// Eligible appends every model that a query may ask to dst, with the propensity 1: it is how a
// query is looked at again when it is not known whom it had asked. A policy that learns may ask every
// model with a prior, at some time if not now.
func (p *Panel) Eligible(s *State, dst []Choice) (choices []Choice, answering int) {
	var buffer [MaxModels]float64
	probabilities := buffer[:len(p.priors)]
	p.policy.Probabilities(s, probabilities)
	learns := len(p.policy.Statistics()) > 0
	for i, probability := range probabilities {
		if probability > 0 || learns && p.priors[i] > 0 {
			dst = append(dst, Choice{Model: i, Propensity: 1})
		}
	}
	return append(dst, p.shadows...), len(dst)
}
