// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"

	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	defaultDecisions = 10
	maxDecisions     = 100
)

// ExplainSelection returns what an application has learned and what this instance remembers of its
// latest decisions. After the application was created anew there are none of before.
func (a applicationService) ExplainSelection(ctx context.Context, r *clipperv1.ExplainSelectionRequest) (*clipperv1.ExplainSelectionResponse, error) {
	n := int(r.GetDecisions())
	if n == 0 {
		n = defaultDecisions
	}
	if n > maxDecisions {
		return nil, invalid("decisions", "want 1 to %d, or 0 for %d, not %d", maxDecisions, defaultDecisions, n)
	}
	state, err := a.GetSelectionState(ctx, &clipperv1.GetSelectionStateRequest{Application: r.GetApplication(), Context: r.GetContext()})
	if err != nil {
		return nil, err
	}
	app, err := a.service.application(r.GetApplication())
	if err != nil {
		return nil, err
	}
	response := &clipperv1.ExplainSelectionResponse{State: state}
	for _, d := range app.recent.latest(n, func(d *decision) bool {
		return (r.GetContext() == "" || d.context == r.GetContext()) && proto.Equal(d.app.proto.CreateTime, app.proto.CreateTime)
	}) {
		p := d.proto()
		p.Feedback = d.feedback.Load()
		response.Decisions = append(response.Decisions, p)
	}
	return response, nil
}
