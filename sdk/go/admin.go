// SPDX-License-Identifier: Apache-2.0

package clipper

import (
	"context"
	"fmt"
	"iter"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// readyPoll is how often a version is looked at until it is ready.
const readyPoll = 100 * time.Millisecond

// Truth says what the true answer was, in the application's kind of output: a label (number or text), a
// number, or for scores the class or a list. It is FeedbackRequest.Observation, and panics for another type
// than bool, string, []any or a number.
func Truth(v any) *clipperv1.FeedbackRequest_Truth {
	return &clipperv1.FeedbackRequest_Truth{Truth: JSON(v)}
}

// JSON returns a value of a message that is JSON, such as Application.DefaultOutput. It panics as [Truth] does.
func JSON(v any) *structpb.Value {
	value, err := structpb.NewValue(v)
	if err != nil {
		panic(fmt.Sprintf("clipper: %T is no value of JSON: %v", v, err))
	}
	return value
}

// Applications returns all applications, sorted by name, page by page. It ends with the first error.
func (c *Client) Applications(ctx context.Context, pageSize int) iter.Seq2[*Application, error] {
	return pages(func(token string) ([]*Application, string, error) {
		r, err := c.ListApplications(ctx, &clipperv1.ListApplicationsRequest{PageSize: uint32(pageSize), PageToken: token})
		return r.GetApplications(), r.GetNextPageToken(), err
	})
}

// Models is as [Client.Applications], for models.
func (c *Client) Models(ctx context.Context, pageSize int) iter.Seq2[*Model, error] {
	return pages(func(token string) ([]*Model, string, error) {
		r, err := c.ListModels(ctx, &clipperv1.ListModelsRequest{PageSize: uint32(pageSize), PageToken: token})
		return r.GetModels(), r.GetNextPageToken(), err
	})
}

func pages[T any](page func(token string) ([]*T, string, error)) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		for token := ""; ; {
			items, next, err := page(token)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			token = next
		}
	}
}

// Deploy deploys a version of a model and waits until it can be queried.
func (c *Client) Deploy(ctx context.Context, req *DeployModelRequest) (*ModelVersion, error) {
	if _, err := c.DeployModel(ctx, req); err != nil {
		return nil, err
	}
	return c.WaitModelReady(ctx, req.GetVersion().GetModel(), req.GetVersion().GetVersion())
}

// WaitModelReady waits until every replica that a version wants can be queried, or ctx ends. A version that
// cannot serve is an error that says why; it is not one of [*Error].
func (c *Client) WaitModelReady(ctx context.Context, model, version string) (*ModelVersion, error) {
	timer := time.NewTimer(readyPoll)
	defer timer.Stop()
	for {
		r, err := c.GetModelVersion(ctx, &clipperv1.GetModelVersionRequest{Model: model, Version: version})
		if err != nil {
			return nil, err
		}
		switch v := r.GetVersion(); v.GetState() {
		case clipperv1.ModelState_MODEL_STATE_READY, clipperv1.ModelState_MODEL_STATE_STOPPED:
			return v, nil
		case clipperv1.ModelState_MODEL_STATE_FAILED:
			return nil, fmt.Errorf("clipper: %s %s cannot serve: %s", model, version, v.GetStateMessage())
		}
		select {
		case <-timer.C:
			timer.Reset(readyPoll)
		case <-ctx.Done():
			return nil, fmt.Errorf("clipper: %s %s is not ready: %s: %w", model, version, r.GetVersion().GetStateMessage(), context.Cause(ctx))
		}
	}
}
