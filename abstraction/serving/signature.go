// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"fmt"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// mergeSignature returns the known signature with what it leaves open filled in from a container's
// description, or the error that they contradict each other.
func mergeSignature(known, described *clipperv1.Signature) (*clipperv1.Signature, error) {
	if err := checkSpecs("input", known.GetInputs(), described.GetInputs()); err != nil {
		return nil, err
	}
	if err := checkSpecs("output", known.GetOutputs(), described.GetOutputs()); err != nil {
		return nil, err
	}
	if len(known.GetInputs()) > 0 && len(known.GetOutputs()) > 0 || described == nil {
		return known, nil
	}
	merged := &clipperv1.Signature{Inputs: known.GetInputs(), Outputs: known.GetOutputs()}
	if len(merged.Inputs) == 0 {
		merged.Inputs = described.Inputs
	}
	if len(merged.Outputs) == 0 {
		merged.Outputs = described.Outputs
	}
	return merged, nil
}

func checkSpecs(kind string, known, described []*clipperv1.TensorSpec) error {
	if len(known) == 0 || len(described) == 0 {
		return nil
	}
	if len(known) != len(described) {
		return fmt.Errorf("the container has %d %ss, the version %d", len(described), kind, len(known))
	}
	for i, want := range known {
		have := described[i]
		const unspecified = clipperv1.DataType_DATA_TYPE_UNSPECIFIED
		switch {
		case len(known) > 1 && want.Name != have.Name:
			return fmt.Errorf("the container names %s %d %q, the version %q", kind, i, have.Name, want.Name)
		case want.DataType != unspecified && have.DataType != unspecified && want.DataType != have.DataType:
			return fmt.Errorf("%s %d (%q) of the container has type %s, of the version %s", kind, i, have.Name, tensor.TypeName(have.DataType), tensor.TypeName(want.DataType))
		case !shapesMeet(want, have):
			return fmt.Errorf("%s %d (%q) of the container has shape %v, of the version %v", kind, i, have.Name, have.Shape, want.Shape)
		}
	}
	return nil
}

// shapesMeet reports whether some shape fits both.
func shapesMeet(a, b *clipperv1.TensorSpec) bool {
	if a.AnyShape || b.AnyShape {
		return true
	}
	if len(a.Shape) != len(b.Shape) {
		return false
	}
	for i := range a.Shape {
		if a.Shape[i] >= 0 && b.Shape[i] >= 0 && a.Shape[i] != b.Shape[i] {
			return false
		}
	}
	return true
}
