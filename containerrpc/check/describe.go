// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func (c *checker) describe(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	d, err := c.client.Describe(ctx, &clipperv1.DescribeRequest{})
	if err != nil {
		return "", fmt.Errorf("the call Describe failed with %s (%s): answer it as soon as the model is loaded", status.Code(err), text(err))
	}
	c.description = d
	for kind, specs := range map[string][]*clipperv1.TensorSpec{"input": d.GetSignature().GetInputs(), "output": d.GetSignature().GetOutputs()} {
		names := map[string]bool{}
		for i, s := range specs {
			switch _, known := clipperv1.DataType_name[int32(s.DataType)]; {
			case !known:
				return "", fmt.Errorf("%s %d has the data_type %d, which does not exist: see tensor.proto", kind, i, s.DataType)
			case s.AnyShape && len(s.Shape) > 0:
				return "", fmt.Errorf("%s %d (%q) has any_shape and the shape %v: leave one of them out", kind, i, s.Name, s.Shape)
			case slices.ContainsFunc(s.Shape, func(n int64) bool { return n < -1 }):
				return "", fmt.Errorf("%s %d (%q) has the shape %v: a dimension is a length, or -1 for any", kind, i, s.Name, s.Shape)
			case len(specs) > 1 && (s.Name == "" || names[s.Name]):
				return "", fmt.Errorf("%s %d is named %q: of several %ss, each needs a name of its own", kind, i, s.Name, kind)
			}
			names[s.Name] = true
		}
	}
	if err := c.prepare(); err != nil {
		return "", err
	}
	declared := func(specs []*clipperv1.TensorSpec) string {
		if len(specs) == 0 {
			return "any"
		}
		return strconv.Itoa(len(specs))
	}
	return fmt.Sprintf("inputs: %s, outputs: %s, batches in flight: %d", declared(d.GetSignature().GetInputs()), declared(d.GetSignature().GetOutputs()), c.flights()), nil
}

// flights is the number of batches that may be under way.
func (c *checker) flights() int {
	if c.description.MaxInFlight == 0 {
		return 2
	}
	return int(c.description.MaxInFlight)
}
