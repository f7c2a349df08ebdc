// SPDX-License-Identifier: Apache-2.0

package clipper

import (
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// The messages that most programs need. All are in package clipperv1, with their documentation.
type (
	// Tensor is a dense array.
	Tensor = clipperv1.Tensor
	// QueryRequest is one question.
	QueryRequest = clipperv1.QueryRequest
	// QueryResponse is the answer to one question.
	QueryResponse = clipperv1.QueryResponse
	// QueryBatchRequest is many questions to one application.
	QueryBatchRequest = clipperv1.QueryBatchRequest
	// BatchQuery is one question of a batch.
	BatchQuery = clipperv1.BatchQuery
	// FeedbackRequest names a query and says how it turned out: see [Truth] and [Reward].
	FeedbackRequest = clipperv1.FeedbackRequest
	// FeedbackResponse says what was learned.
	FeedbackResponse = clipperv1.FeedbackResponse
	// Reward says how good an answer was, in [0, 1]: FeedbackRequest.Observation.
	Reward = clipperv1.FeedbackRequest_Reward
	// Application is what a client queries.
	Application = clipperv1.Application
	// ApplicationModel is one model that an application may ask.
	ApplicationModel = clipperv1.ApplicationModel
	// Model is a name with versions.
	Model = clipperv1.Model
	// ModelVersion is one immutable version of a model and how it runs.
	ModelVersion = clipperv1.ModelVersion
	// DeployModelRequest holds the version to deploy.
	DeployModelRequest = clipperv1.DeployModelRequest
)
