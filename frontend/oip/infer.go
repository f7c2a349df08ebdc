// SPDX-License-Identifier: Apache-2.0

package oip

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/go/inference"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/priority"
)

// ModelInfer implements the protocol. The rows of a request are queries of their own; when one of them
// fails, the request fails with its error.
func (s *Server) ModelInfer(ctx context.Context, req *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
	begun := time.Now()
	to, err := s.resolve(ctx, req.GetModelName(), req.GetModelVersion(), false)
	if err != nil {
		return nil, err
	}
	res, n, err := s.infer(ctx, to, req)
	s.statistics.observe(to, n, err, time.Since(begun))
	return res, err
}

func (s *Server) infer(ctx context.Context, to target, req *inference.ModelInferRequest) (*inference.ModelInferResponse, int, error) {
	options, err := readParameters(req.GetParameters())
	if err != nil {
		return nil, 0, err
	}
	rows, batched, err := rows(req, to.inputs())
	if err != nil {
		return nil, 0, err
	}
	res := &inference.ModelInferResponse{ModelName: to.name(), Id: req.GetId()}
	var outputs [][]*clipperv1.Tensor
	scalar := false
	if to.app != nil {
		res.ModelVersion = applicationVersion
		scalar = to.app.GetOutput().GetKind() != clipperv1.OutputKind_OUTPUT_KIND_SCORES
		outputs, err = s.askApplication(onBehalf(ctx), to.app.GetName(), rows, options, res)
	} else {
		outputs, err = s.askModel(onBehalf(ctx), to, req.GetModelVersion(), rows, options, res)
	}
	if err != nil {
		return nil, len(rows), err
	}
	typed := s.dialect(ctx) == MLServer && len(req.GetRawInputContents()) == 0
	if err := write(res, req, outputs, batched, scalar, typed); err != nil {
		return nil, len(rows), err
	}
	return res, len(rows), nil
}

// options are what the parameters of a request say.
type options struct {
	timeout  *durationpb.Duration
	priority uint32
	context  string
}

// readParameters reads the parameters that mean something here; others are the client's own.
func readParameters(parameters map[string]*inference.InferParameter) (options, error) {
	var o options
	if p := parameters["timeout"]; p != nil {
		micros, ok := integer(p)
		if !ok || micros > math.MaxInt64/1000 {
			return o, badParameter("timeout", "expected a whole number of microseconds, or 0 for none")
		}
		if micros > 0 {
			o.timeout = durationpb.New(time.Duration(micros) * time.Microsecond)
		}
	}
	if p := parameters["priority"]; p != nil {
		level, ok := integer(p)
		if !ok {
			return o, badParameter("priority", "expected a whole number: 1 matters most, 0 is the default")
		}
		o.priority = uint32(min(level, priority.Max))
	}
	if p := parameters["context"]; p != nil {
		text, ok := p.GetParameterChoice().(*inference.InferParameter_StringParam)
		if !ok {
			return o, badParameter("context", "expected a string: the user, session or device")
		}
		o.context = text.StringParam
	}
	return o, nil
}

// integer reads a whole number that is not negative, in any form that a client has for it.
func integer(p *inference.InferParameter) (uint64, bool) {
	switch v := p.GetParameterChoice().(type) {
	case *inference.InferParameter_Int64Param:
		return uint64(v.Int64Param), v.Int64Param >= 0
	case *inference.InferParameter_Uint64Param:
		return v.Uint64Param, true
	case *inference.InferParameter_DoubleParam:
		return uint64(v.DoubleParam), v.DoubleParam >= 0 && v.DoubleParam < 1<<63 && v.DoubleParam == math.Trunc(v.DoubleParam)
	case *inference.InferParameter_StringParam:
		n, err := strconv.ParseUint(v.StringParam, 10, 64)
		return n, err == nil
	}
	return 0, false
}

func badParameter(name, expected string) error {
	field := fmt.Sprintf("parameters[%q]", name)
	return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field, "%s: %s", field, expected)
}

// askApplication returns the outputs of each row, and puts what else an answer carries into res.
func (s *Server) askApplication(ctx context.Context, name string, rows [][]*clipperv1.Tensor, o options, res *inference.ModelInferResponse) ([][]*clipperv1.Tensor, error) {
	answers := make([]*clipperv1.QueryResponse, len(rows))
	if len(rows) == 1 {
		answer, err := s.deps.Query.Query(ctx, &clipperv1.QueryRequest{Application: name, Inputs: rows[0], Context: o.context, Timeout: o.timeout, Priority: o.priority})
		if err != nil {
			return nil, err
		}
		answers[0] = answer
	} else {
		queries := make([]*clipperv1.BatchQuery, len(rows))
		for i, row := range rows {
			queries[i] = &clipperv1.BatchQuery{Inputs: row, Context: o.context, Priority: o.priority}
		}
		batch, err := s.deps.Query.QueryBatch(ctx, &clipperv1.QueryBatchRequest{Application: name, Queries: queries, Timeout: o.timeout})
		if err != nil {
			return nil, err
		}
		for i, result := range batch.GetResults() {
			if e := result.GetError(); e != nil {
				return nil, rowError(i, e)
			}
			answers[i] = result.GetResponse()
		}
	}
	outputs := make([][]*clipperv1.Tensor, len(rows))
	for i, a := range answers {
		outputs[i] = a.GetOutputs()
		if len(outputs[i]) == 0 {
			return nil, apierror.New(codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_SIGNATURE_MISMATCH, "", "row %d has no output: the application's default output does not fit its output", i)
		}
	}
	res.Parameters = answerParameters(answers)
	return outputs, nil
}

// answerParameters says what the protocol has no place for. Only strings and truth values are sent: a
// client of KServe knows no other number than an integer. Of several rows they are JSON lists.
func answerParameters(answers []*clipperv1.QueryResponse) map[string]*inference.InferParameter {
	var (
		confidences []float64
		defaults    []bool
		reasons     []string
		feedbackIDs []string
		anyDefault  bool
	)
	for _, a := range answers {
		confidences = append(confidences, a.GetConfidence())
		defaults = append(defaults, a.GetIsDefault())
		feedbackIDs = append(feedbackIDs, a.GetFeedbackId())
		reason := ""
		if a.GetIsDefault() {
			anyDefault = true
			reason = strings.TrimPrefix(a.GetDefaultReason().String(), "DEFAULT_REASON_")
		}
		reasons = append(reasons, reason)
	}
	var p map[string]*inference.InferParameter
	if len(answers) == 1 {
		p = map[string]*inference.InferParameter{
			"confidence":     text(strconv.FormatFloat(confidences[0], 'g', -1, 64)),
			"is_default":     {ParameterChoice: &inference.InferParameter_BoolParam{BoolParam: defaults[0]}},
			"default_reason": text(reasons[0]),
			"feedback_id":    text(feedbackIDs[0]),
		}
	} else {
		p = map[string]*inference.InferParameter{
			"confidence":     list(confidences),
			"is_default":     list(defaults),
			"default_reason": list(reasons),
			"feedback_id":    list(feedbackIDs),
		}
	}
	if !anyDefault {
		delete(p, "default_reason")
	}
	return p
}

func text(s string) *inference.InferParameter {
	return &inference.InferParameter{ParameterChoice: &inference.InferParameter_StringParam{StringParam: s}}
}

// list is a JSON list; what is in it can always be encoded.
func list(values any) *inference.InferParameter {
	b, _ := json.Marshal(values)
	return text(string(b))
}

// askModel returns the outputs of each row of a model, and puts the version that answered into res.
func (s *Server) askModel(ctx context.Context, to target, version string, rows [][]*clipperv1.Tensor, o options, res *inference.ModelInferResponse) ([][]*clipperv1.Tensor, error) {
	req := &clipperv1.PredictModelRequest{Model: to.name(), Version: version, Timeout: o.timeout, Priority: o.priority, Rows: make([]*clipperv1.ModelRow, len(rows))}
	for i, row := range rows {
		req.Rows[i] = &clipperv1.ModelRow{Inputs: row}
	}
	answer, err := s.deps.Query.PredictModel(ctx, req)
	if err != nil {
		return nil, err
	}
	outputs := make([][]*clipperv1.Tensor, len(rows))
	for i, p := range answer.GetPredictions() {
		if err := predictionError(i, p); err != nil {
			return nil, err
		}
		outputs[i], res.ModelVersion = p.GetOutputs(), p.GetVersion()
	}
	return outputs, nil
}

// predictionError is a model's failure to answer a row as an error; nil when it answered.
func predictionError(row int, p *clipperv1.ModelPrediction) error {
	code, reason := codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE
	switch p.GetStatus() {
	case clipperv1.PredictionStatus_PREDICTION_STATUS_OK:
		if len(p.GetOutputs()) > 0 {
			return nil
		}
		return apierror.New(codes.Internal, clipperv1.ErrorReason_ERROR_REASON_MODEL_PROTOCOL, "", "row %d: the model gave no output", row)
	case clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE:
		code, reason = codes.DeadlineExceeded, clipperv1.ErrorReason_ERROR_REASON_DEADLINE
	case clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED:
		code, reason = codes.Unknown, clipperv1.ErrorReason_ERROR_REASON_MODEL_FAILED
	case clipperv1.PredictionStatus_PREDICTION_STATUS_NOT_FOUND:
		code, reason = codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND
	case clipperv1.PredictionStatus_PREDICTION_STATUS_OVERLOADED:
		return apierror.Overloaded(p.GetRetryAfter().AsDuration(), "row %d: %s", row, p.GetMessage())
	}
	return apierror.New(code, reason, "", "row %d: %s", row, p.GetMessage())
}

// rowError is the error of one row of a batch.
func rowError(row int, e *clipperv1.Error) error {
	if e.GetReason() == clipperv1.ErrorReason_ERROR_REASON_OVERLOADED {
		return apierror.Overloaded(e.GetRetryAfter().AsDuration(), "row %d: %s", row, e.GetMessage())
	}
	return apierror.New(codes.Code(e.GetCode()), e.GetReason(), e.GetField(), "row %d: %s", row, e.GetMessage())
}

// message is an error as people read it.
func message(err error) string { return status.Convert(apierror.From(err)).Message() }
