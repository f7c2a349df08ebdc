// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
)

// PythonVariable names the interpreter that runs the reference implementation; without it, it is python3.
const PythonVariable = "CLIPPER_REFERENCE_PYTHON"

// Noise is how many standard errors of their difference the means of two implementations may be apart. Twenty pairs
// that do the same are all within it with a probability of 95 %; the seeds are fixed, so a pair stays where it is.
const Noise = 3

// source is the reference implementation.
//
//go:embed reference.py
var source string

// Python returns the interpreter for the reference implementation, or why it cannot run it.
func Python(ctx context.Context) (string, error) {
	python := os.Getenv(PythonVariable)
	if python == "" {
		python = "python3"
	}
	out, err := exec.CommandContext(ctx, python, "-c", "import numpy").CombinedOutput()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return "", fmt.Errorf("%s: %w: %s", python, err, lines[len(lines)-1])
	}
	return python, nil
}

// Pair is a case as our policy and as the reference implementation did it: the mean regrets and their standard errors.
type Pair struct {
	Case                          Case
	Mean, Error                   float64
	ReferenceMean, ReferenceError float64
}

// Apart is the difference of the means in standard errors of it. Where neither has any noise it is
// 0 or infinite.
func (p Pair) Apart() float64 {
	difference, deviation := p.Mean-p.ReferenceMean, math.Hypot(p.Error, p.ReferenceError)
	if math.Abs(difference) < 1e-6 { // Rounding, where nothing is random.
		return 0
	}
	return difference / deviation
}

// request is what the reference implementation is asked.
type request struct {
	Policy     string             `json:"policy"`
	Parameters map[string]float64 `json:"parameters"`
	Stream     string             `json:"stream"`
	Steps      int                `json:"steps"`
	Seeds      int                `json:"seeds"`
	Pseudo     bool               `json:"pseudo"`
}

// Agreement plays the cases of the suite that the reference implementation knows, with both.
func Agreement(ctx context.Context, python string, seeds int) ([]Pair, error) {
	var pairs []Pair
	var requests []request
	for _, c := range Suite() {
		if c.Reference == "" {
			continue
		}
		regrets, err := c.Regrets(seeds)
		if err != nil {
			return nil, err
		}
		p := Pair{Case: c}
		p.Mean, p.Error = Mean(regrets)
		pairs = append(pairs, p)
		requests = append(requests, request{c.Reference, c.Parameters, c.Stream, c.Steps, seeds, c.Pseudo})
	}
	asked, err := json.Marshal(requests)
	if err != nil {
		return nil, err
	}
	command := exec.CommandContext(ctx, python, "-c", source)
	command.Stdin, command.Stderr = bytes.NewReader(asked), os.Stderr
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("run the reference implementation: %w", err)
	}
	var answers [][]float64
	if err := json.Unmarshal(out, &answers); err != nil {
		return nil, fmt.Errorf("read the reference implementation: %w", err)
	}
	if len(answers) != len(pairs) {
		return nil, fmt.Errorf("the reference implementation answered %d of %d cases", len(answers), len(pairs))
	}
	for i, regrets := range answers {
		pairs[i].ReferenceMean, pairs[i].ReferenceError = Mean(regrets)
	}
	return pairs, nil
}

// Mean returns the mean of values and its standard error.
func Mean(values []float64) (mean, deviation float64) {
	n := float64(len(values))
	for _, v := range values {
		mean += v / n
	}
	for _, v := range values {
		deviation += (v - mean) * (v - mean)
	}
	return mean, math.Sqrt(deviation / (n - 1) / n)
}
