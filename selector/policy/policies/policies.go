// SPDX-License-Identifier: Apache-2.0

// Package policies makes policies by name.
package policies

import (
	"fmt"

	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/epsilongreedy"
	"github.com/clipper-serving/clipper/selector/policy/exp3"
	"github.com/clipper-serving/clipper/selector/policy/exp4"
	"github.com/clipper-serving/clipper/selector/policy/linucb"
	"github.com/clipper-serving/clipper/selector/policy/majority"
	"github.com/clipper-serving/clipper/selector/policy/mean"
	"github.com/clipper-serving/clipper/selector/policy/single"
	"github.com/clipper-serving/clipper/selector/policy/static"
	"github.com/clipper-serving/clipper/selector/policy/thompson"
	"github.com/clipper-serving/clipper/selector/policy/ucb1"
)

// Names returns the names of all policies, sorted.
func Names() []string {
	return []string{"epsilon-greedy", "exp3", "exp4", "linucb", "majority", "mean", "single", "static", "thompson", "ucb1"}
}

// New returns the policy with the name. Its parameters are in the comment of its package; one that is
// not known or out of range is a [*policy.ParameterError].
func New(name string, parameters map[string]float64) (policy.Policy, error) {
	switch name {
	case "single":
		return single.New(parameters)
	case "static":
		return static.New(parameters)
	case "majority":
		return majority.New(parameters)
	case "mean":
		return mean.New(parameters)
	case "epsilon-greedy":
		return epsilongreedy.New(parameters)
	case "ucb1":
		return ucb1.New(parameters)
	case "thompson":
		return thompson.New(parameters)
	case "exp3":
		return exp3.New(parameters)
	case "exp4":
		return exp4.New(parameters)
	case "linucb":
		return linucb.New(parameters)
	}
	return nil, fmt.Errorf("policy %q is not known, want one of %q", name, Names())
}
