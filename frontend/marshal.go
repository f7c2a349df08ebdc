// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/frontend/naturaljson"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/priority"
)

// marshaler reads and writes the bodies of the REST API: natural JSON for queries and feedback, the
// JSON form of protocol buffers for the rest. Reading is strict.
type marshaler struct{}

var _ runtime.Marshaler = marshaler{}

// protoJSON writes every field that has no presence of its own, so that a 0 and an empty list are
// seen.
var protoJSON = protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}

// ContentType is asked for the answer of a call, or for why a stream has failed before it began.
func (marshaler) ContentType(v any) string {
	if _, failed := v.(map[string]proto.Message); failed {
		return problemType
	}
	return "application/json"
}

func (marshaler) Marshal(v any) ([]byte, error) {
	switch v := v.(type) {
	case *clipperv1.QueryResponse:
		return appendQueryResponse(make([]byte, 0, 512), v)
	case *clipperv1.QueryBatchResponse:
		return appendQueryBatchResponse(nil, v)
	case *clipperv1.FeedbackBatchResponse:
		return appendFeedbackBatchResponse(nil, v)
	case proto.Message:
		return appendMessage(nil, v)
	}
	return appendChunk(nil, v)
}

// StreamContentType is the type of a stream: one JSON object on each line.
func (marshaler) StreamContentType(any) string { return "application/x-ndjson" }

func (marshaler) Unmarshal(data []byte, v any) error {
	_, err := decodeBody(data, v)
	return err
}

func (marshaler) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		b, ok := r.(*body)
		if !ok {
			return fmt.Errorf("read JSON from %T: not a body that was read", r)
		}
		b.pos = len(b.data)
		b.mask, b.err = decodeBody(b.data, v)
		return b.err
	})
}

func (m marshaler) NewEncoder(w io.Writer) runtime.Encoder {
	return runtime.EncoderFunc(func(v any) error {
		b, err := m.Marshal(v)
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	})
}

// decodeBody reads a body into a message. For a resource it returns the top-level keys as well.
func decodeBody(data []byte, v any) (mask []string, err error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON, "", "the request body is empty: expected a JSON object")
	}
	if resource, ok := v.(**clipperv1.Application); ok {
		*resource = &clipperv1.Application{}
		if err := unmarshalMessage(data, *resource); err != nil {
			return nil, err
		}
		return applicationMask(data)
	}
	if resource, ok := v.(**clipperv1.Key); ok {
		*resource = &clipperv1.Key{}
		return nil, unmarshalMessage(data, *resource)
	}
	var read func(naturaljson.Value) error
	switch v := v.(type) {
	case *clipperv1.QueryRequest:
		read = func(value naturaljson.Value) error { return readQuery(value, v) }
	case *clipperv1.QueryBatchRequest:
		read = func(value naturaljson.Value) error { return readQueryBatch(value, v) }
	case *clipperv1.FeedbackRequest:
		read = func(value naturaljson.Value) error { return readFeedback(value, v) }
	case *clipperv1.FeedbackBatchRequest:
		read = func(value naturaljson.Value) error { return readFeedbackBatch(value, v) }
	case proto.Message:
		return nil, unmarshalMessage(data, v)
	default:
		return nil, fmt.Errorf("read JSON into %T: not a message", v)
	}
	value, err := naturaljson.Parse(data)
	if err == nil {
		err = read(value)
	}
	if err != nil {
		return nil, fromJSON(err)
	}
	return nil, nil
}

// applicationMask returns the names of the fields that an application's JSON sets.
func applicationMask(data []byte) ([]string, error) {
	value, err := naturaljson.Parse(data)
	if err != nil {
		return nil, fromJSON(err)
	}
	fields := (*clipperv1.Application)(nil).ProtoReflect().Descriptor().Fields()
	var mask []string
	err = value.Members(func(key string, _ naturaljson.Value) error {
		field := fields.ByJSONName(key)
		if field == nil {
			field = fields.ByTextName(key)
		}
		switch field.Name() {
		case "name", "etag", "create_time", "update_time": // These say which, or are the server's.
		default:
			mask = append(mask, string(field.Name()))
		}
		return nil
	})
	if err != nil {
		return nil, fromJSON(err)
	}
	return mask, nil
}

func unknownKey(member naturaljson.Value, key, expected string) error {
	return member.Errorf(clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON, "unknown key %q, expected %s", shorten(key), expected)
}

// setText reads a string.
func setText(to *string, v naturaljson.Value) (err error) {
	*to, err = v.Text()
	return err
}

func readQuery(v naturaljson.Value, req *clipperv1.QueryRequest) error {
	err := v.Members(func(key string, member naturaljson.Value) error {
		switch key {
		case "input":
			req.InputJson = member.Raw
		case "context":
			return setText(&req.Context, member)
		case "id":
			return setText(&req.Id, member)
		case "timeout":
			return readTimeout(&req.Timeout, member)
		case "priority":
			return readPriority(&req.Priority, member)
		default:
			return unknownKey(member, key, `"input", "context", "timeout", "priority" or "id"`)
		}
		return nil
	})
	if err == nil && req.InputJson == nil {
		err = missingInput(v)
	}
	return err
}

func missingInput(v naturaljson.Value) error {
	v.Path = strings.TrimPrefix(v.Path+".input", ".")
	return v.Errorf(clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, `is missing: expected the query's input, as in {"input": [0.1, 0.2]}`)
}

func readTimeout(to **durationpb.Duration, v naturaljson.Value) error {
	*to = &durationpb.Duration{}
	if protojson.Unmarshal(v.Raw, *to) != nil {
		return v.Errorf(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, `is not a duration: expected seconds as a string, as in "0.05s"`)
	}
	return nil
}

func readPriority(to *uint32, v naturaljson.Value) error {
	p, err := v.Number()
	if err != nil || p != math.Trunc(p) || p < 0 || p > priority.Max {
		return v.Errorf(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "is not a priority: expected a whole number from 1, the highest, to %d", priority.Max)
	}
	*to = uint32(p)
	return nil
}

func readQueryBatch(v naturaljson.Value, req *clipperv1.QueryBatchRequest) error {
	return v.Members(func(key string, member naturaljson.Value) error {
		switch key {
		case "queries":
			return member.Items(func(item naturaljson.Value) error {
				if len(req.Queries) == maxBatch {
					return tooManyItems(member)
				}
				q := &clipperv1.BatchQuery{}
				req.Queries = append(req.Queries, q)
				return item.Members(func(key string, member naturaljson.Value) error {
					switch key {
					case "input":
						q.InputJson = member.Raw
					case "context":
						return setText(&q.Context, member)
					case "id":
						return setText(&q.Id, member)
					case "priority":
						return readPriority(&q.Priority, member)
					default:
						return unknownKey(member, key, `"input", "context", "priority" or "id"`)
					}
					return nil
				})
			})
		case "timeout":
			return readTimeout(&req.Timeout, member)
		}
		return unknownKey(member, key, `"queries" or "timeout"`)
	})
}

func tooManyItems(list naturaljson.Value) error {
	return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE, list.Path, "%s has more than %d items, the most that is allowed", list.Path, maxBatch)
}

func readFeedback(v naturaljson.Value, req *clipperv1.FeedbackRequest) error {
	return v.Members(func(key string, member naturaljson.Value) error {
		switch key {
		case "feedback_id":
			return setText(&req.FeedbackId, member)
		case "input":
			req.InputJson = member.Raw
		case "context":
			return setText(&req.Context, member)
		case "id":
			return setText(&req.Id, member)
		case "truth", "reward":
			if req.Observation != nil {
				return member.Errorf(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "truth and reward exclude each other")
			}
			if key == "truth" {
				return readTruth(req, member)
			}
			reward, err := member.Number()
			req.Observation = &clipperv1.FeedbackRequest_Reward{Reward: reward}
			return err
		default:
			return unknownKey(member, key, `"feedback_id", "input", "context", "truth", "reward" or "id"`)
		}
		return nil
	})
}

func readTruth(req *clipperv1.FeedbackRequest, v naturaljson.Value) error {
	truth := &structpb.Value{}
	if err := protojson.Unmarshal(v.Raw, truth); err != nil {
		return v.Errorf(clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON, "cannot be read: %s", protoMessage(err))
	}
	req.Observation = &clipperv1.FeedbackRequest_Truth{Truth: truth}
	return nil
}

func readFeedbackBatch(v naturaljson.Value, req *clipperv1.FeedbackBatchRequest) error {
	return v.Members(func(key string, member naturaljson.Value) error {
		if key != "items" {
			return unknownKey(member, key, `"items"`)
		}
		return member.Items(func(item naturaljson.Value) error {
			if len(req.Items) == maxBatch {
				return tooManyItems(member)
			}
			f := &clipperv1.FeedbackRequest{}
			req.Items = append(req.Items, f)
			return readFeedback(item, f)
		})
	})
}

// unmarshalMessage reads the JSON form of a message.
func unmarshalMessage(data []byte, m proto.Message) error {
	err := protojson.Unmarshal(data, m)
	if err == nil {
		return nil
	}
	message, field := protoMessage(err), ""
	if found := protoField.FindStringSubmatch(message); found != nil {
		// protojson says confidenceThreshold for what callers write as confidence_threshold.
		field = upper.ReplaceAllStringFunc(found[1], func(c string) string { return "_" + strings.ToLower(c) })
		message = strings.Replace(message, found[1], field, 1)
	}
	if found := protoOneof.FindStringSubmatch(message); found != nil {
		return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, found[1],
			"%s: another member is there already that excludes it: expected one of them", found[1])
	}
	reason := clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON
	if strings.Contains(message, "invalid value") || strings.Contains(message, "invalid google.protobuf") {
		reason = clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD
	}
	return apierror.Invalid(reason, field, "%s", message)
}

var (
	// protoField finds the name of the field in an error of protojson.
	protoField = regexp.MustCompile(`field "?([a-zA-Z0-9_.]+)"?`)
	// protoOneof finds the second of two fields of which only one may be set.
	protoOneof = regexp.MustCompile(`error parsing "([a-zA-Z0-9_]+)", oneof `)
	upper      = regexp.MustCompile(`[A-Z]`)
)

// protoMessage returns what protojson says, without its prefix, whose space is not always the same.
func protoMessage(err error) string {
	return strings.TrimLeftFunc(strings.TrimPrefix(err.Error(), "proto:"), unicode.IsSpace)
}

// appendMessage appends the JSON form of a message, whose spaces protojson varies.
func appendMessage(b []byte, m proto.Message) ([]byte, error) {
	text, err := protoJSON.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write %s as JSON: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	buffer := bytes.NewBuffer(b)
	if err := json.Compact(buffer, text); err != nil {
		return nil, fmt.Errorf("write %s as JSON: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return buffer.Bytes(), nil
}

func appendQueryResponse(b []byte, r *clipperv1.QueryResponse) ([]byte, error) {
	b = append(b, `{"output":`...)
	b, err := naturaljson.AppendTensors(b, r.GetOutputs())
	if err != nil {
		return nil, err
	}
	b = append(b, `,"is_default":`...)
	b = strconv.AppendBool(b, r.GetIsDefault())
	if r.GetDefaultReason() != clipperv1.DefaultReason_DEFAULT_REASON_UNSPECIFIED {
		b = append(b, `,"default_reason":`...)
		b = naturaljson.AppendText(b, r.GetDefaultReason().String())
	}
	b = append(b, `,"confidence":`...)
	b = naturaljson.AppendNumber(b, r.GetConfidence(), 64)
	b = append(b, `,"predictions":[`...)
	for i, p := range r.GetPredictions() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendPrediction(b, p); err != nil {
			return nil, err
		}
	}
	b = append(b, ']')
	b = appendTextMember(b, "feedback_id", r.GetFeedbackId())
	b = appendTextMember(b, "id", r.GetId())
	return append(b, '}'), nil
}

func appendPrediction(b []byte, p *clipperv1.ModelPrediction) ([]byte, error) {
	b = append(b, `{"model":`...)
	b = naturaljson.AppendText(b, p.GetModel())
	b = appendTextMember(b, "version", p.GetVersion())
	b = append(b, `,"status":`...)
	b = naturaljson.AppendText(b, p.GetStatus().String())
	if len(p.GetOutputs()) > 0 {
		b = append(b, `,"output":`...)
		var err error
		if b, err = naturaljson.AppendTensors(b, p.GetOutputs()); err != nil {
			return nil, fmt.Errorf("model %s: %w", p.GetModel(), err)
		}
	}
	b = appendTextMember(b, "message", p.GetMessage())
	if after := p.GetRetryAfter(); after != nil {
		b = append(b, `,"retry_after_ms":`...)
		b = strconv.AppendInt(b, max(1, after.AsDuration().Milliseconds()), 10)
	}
	b = append(b, `,"cached":`...)
	b = strconv.AppendBool(b, p.GetCached())
	b = append(b, `,"propensity":`...)
	b = naturaljson.AppendNumber(b, p.GetPropensity(), 64)
	b = append(b, `,"shadow":`...)
	b = strconv.AppendBool(b, p.GetShadow())
	return append(b, '}'), nil
}

// appendTextMember appends a member unless it is empty.
func appendTextMember(b []byte, key, text string) []byte {
	if text == "" {
		return b
	}
	b = append(b, `,"`...)
	b = append(b, key...)
	b = append(b, `":`...)
	return naturaljson.AppendText(b, text)
}

func appendQueryBatchResponse(b []byte, r *clipperv1.QueryBatchResponse) ([]byte, error) {
	return appendResults(b, r.GetResults(), (*clipperv1.QueryResult).GetError, func(b []byte, result *clipperv1.QueryResult) ([]byte, error) {
		return appendQueryResponse(b, result.GetResponse())
	})
}

func appendFeedbackBatchResponse(b []byte, r *clipperv1.FeedbackBatchResponse) ([]byte, error) {
	return appendResults(b, r.GetResults(), (*clipperv1.FeedbackResult).GetError, func(b []byte, result *clipperv1.FeedbackResult) ([]byte, error) {
		text, err := appendMessage(nil, result.GetResponse())
		return append(b, text...), err
	})
}

// appendResults appends the results of a batch, each an answer or an error.
func appendResults[R any](b []byte, results []R, failure func(R) *clipperv1.Error, appendResponse func([]byte, R) ([]byte, error)) ([]byte, error) {
	b = append(b, `{"results":[`...)
	for i, result := range results {
		if i > 0 {
			b = append(b, ',')
		}
		if e := failure(result); e != nil {
			b = append(b, `{"error":`...)
			b = append(appendError(b, e), '}')
			continue
		}
		b = append(b, `{"response":`...)
		var err error
		if b, err = appendResponse(b, result); err != nil {
			return nil, err
		}
		b = append(b, '}')
	}
	return append(b, "]}"...), nil
}
