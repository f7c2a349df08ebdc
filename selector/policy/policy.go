// SPDX-License-Identifier: Apache-2.0

// Package policy defines how models are selected, combined and learned about.
//
// A policy is three pure functions over (state, query): Select says which models to ask, Combine
// makes one answer of what they said, Observe says what to add to the state when the losses are
// known. A policy does no I/O, holds nothing that changes, and takes its randomness from the query.
//
// The state is a dense matrix of additive statistics, one row for each model. Learning is only ever
// adding to it, so any number of instances learn at once and no update is lost.
//
// A model whose prior is zero takes no part: no policy chooses it or counts its vote. Shadow models
// are such models; [Panel] asks them besides what the policy chose. Groups are in the priors, too.
//
// The policies are in the folders below, one each; package policies makes them by name, and
// package policytest says in tests what is said here in words. Package simulation plays them.
package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

const (
	// MaxModels is the most models that a state may have.
	MaxModels = 64
	// MaxFeatures is the most features that a policy may want.
	MaxFeatures = 64
)

// LogWeight is the name of a statistic that is the logarithm of a weight. Other statistics are counts and
// sums of observations, so that a part of them is what fewer observations would have given; a log weight is
// a decision, which a part of it takes less firmly. It matters where a context begins from the shared state.
const LogWeight = "log_weight"

// Policy selects, combines and learns. All methods are pure and safe for concurrent use. Slices
// called dst are written to and returned grown as append does, or have the length that is stated.
type Policy interface {
	// Statistics returns the names of the statistics that are kept for each model: the columns of
	// the state. The result is not modified.
	Statistics() []string

	// Shares writes each model's share of the trust to dst, which has one element for each model.
	// Shares are in [0, 1] and sum to 1. A policy that asks several models combines them as [Vote] does
	// with these weights, on which early answers rely: see [Decided].
	Shares(s *State, dst []float64)

	// Probabilities writes the probability that the next query asks each model to dst, which has
	// one element for each model.
	Probabilities(s *State, dst []float64)

	// Select appends the models to ask to dst, each once, in rising order, with the probability
	// with which it was chosen. It always chooses at least one.
	Select(s *State, q *Query, dst []Choice) []Choice

	// Combine makes one answer of the predictions, which are in the order of the choices and may be
	// missing. choices hold no shadow models. Scores are appended to dst.
	Combine(s *State, t Task, choices []Choice, predictions []Value, dst []float64) Combined

	// Observe writes what to add to the state's statistics to dst, which is as long as they are.
	Observe(s *State, o Observation, dst []float64)
}

// Contextual is a policy whose choice depends on the input. Without features, which a query has when
// its input is not known, it sees the constant alone.
type Contextual interface {
	Policy

	// Dimension returns how many features it wants of an input, 1 to MaxFeatures. The last one is the
	// constant 1; how the others are made is in package features.
	Dimension() int

	// ProbabilitiesFor is Probabilities for a query with these features.
	ProbabilitiesFor(s *State, features, dst []float64)
}

// State is what has been learned, as a policy reads it.
type State struct {
	// Priors are the initial weights, one for each model, at least 0, with the sum 1.
	Priors []float64
	// Statistics is the matrix [model][statistic], row-major.
	Statistics []float64
}

// Query is what a choice may depend on besides the state.
type Query struct {
	// Random is the source of all randomness.
	Random *rand.Rand
	// Features are what a [Contextual] policy sees of the input; nil for others.
	Features []float64
}

// Choice is one model that is asked.
type Choice struct {
	// Model is the model's row in the state.
	Model int
	// Propensity is the probability with which it was chosen, in (0, 1].
	Propensity float64
	// Shadow is true when its prediction has no part in the answer.
	Shadow bool
}

// Combined is the answer.
type Combined struct {
	// Value is the answer; missing when every prediction is.
	Value Value
	// Confidence is how far it can be trusted, in [0, 1]; see [Vote].
	Confidence float64
}

// Unknown is the loss of a model whose loss is not known.
const Unknown = -1.0

// Observation is what became known about a query.
type Observation struct {
	// Choices are the models that were asked, with the propensities of that time.
	Choices []Choice
	// Losses are in the order of the choices, in [0, 1], or Unknown.
	Losses []float64
	// Features are those that the query had for a [Contextual] policy of now or then; nil when it had none.
	Features []float64
}

// Kind is what an answer is.
type Kind uint8

// The kinds of answers.
const (
	// Label is a class, an integer or a text.
	Label Kind = iota + 1
	// Number is a finite number.
	Number
	// Scores is a list of finite numbers, one for each class.
	Scores
)

// Task says how answers are compared.
type Task struct {
	// Kind is what an answer is.
	Kind Kind
	// Measure says how wrong one is; the zero Measure is that of the kind.
	Measure Measure
	// Min and Max bound numbers and scale their loss; of no meaning for other kinds.
	Min, Max float64
}

// Agree reports whether a prediction says the same as the answer: the same label, the same class
// of the largest score. Numbers never disagree; they are more or less far.
func (t Task) Agree(answer, prediction Value) bool {
	switch t.Kind {
	case Number:
		return prediction.form == number && answer.form == number
	case Scores:
		a, okA := answer.Class()
		b, okB := prediction.Class()
		return okA && okB && a == b
	}
	return answer.form != missing && answer.Equal(prediction)
}

// Draw returns a row chosen with the given probabilities, which sum to 1 but for rounding.
func Draw(random *rand.Rand, probabilities []float64) int {
	u := random.Float64()
	last := 0
	for i, p := range probabilities {
		if p <= 0 {
			continue
		}
		if u < p {
			return i
		}
		u -= p
		last = i
	}
	return last
}

// ParameterError says that a policy's parameter is not known or out of range.
type ParameterError struct {
	// Name is the parameter.
	Name string
	// Problem says what is wrong and what was expected.
	Problem string
}

// Error implements error.
func (e *ParameterError) Error() string { return fmt.Sprintf("parameter %q %s", e.Name, e.Problem) }

// Parameter declares one parameter of a policy.
type Parameter struct {
	// Name is what a user calls it.
	Name string
	// Default is its value when it is not given.
	Default float64
	// Min and Max bound it; both are allowed values.
	Min, Max float64
	// Value gets what was given.
	Value *float64
}

// Read sets the declared parameters from those given. A parameter that is not declared or out of
// range is a [*ParameterError].
func Read(given map[string]float64, declared ...Parameter) error {
	names := make([]string, len(declared))
	for i, p := range declared {
		names[i] = p.Name
		*p.Value = p.Default
		if v, ok := given[p.Name]; ok {
			if !(v >= p.Min && v <= p.Max) {
				return &ParameterError{Name: p.Name, Problem: fmt.Sprintf("is %v, want a number from %v to %v", v, p.Min, p.Max)}
			}
			*p.Value = v
		}
	}
	unknown := ""
	for name := range given {
		if !slices.Contains(names, name) && (unknown == "" || name < unknown) {
			unknown = name
		}
	}
	switch {
	case unknown == "":
		return nil
	case len(names) == 0:
		return &ParameterError{Name: unknown, Problem: "is not known; this policy has no parameters"}
	}
	return &ParameterError{Name: unknown, Problem: fmt.Sprintf("is not known, want one of %q", names)}
}
