// SPDX-License-Identifier: Apache-2.0

package clipper_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	clipper "github.com/clipper-serving/clipper/sdk/go"
)

// object is a JSON object.
type object = map[string]any

// TestAcceptance runs the list of sdk/acceptance against a real server.
func TestAcceptance(t *testing.T) {
	program, err := filepath.Abs(filepath.Join(t.TempDir(), "server"))
	check(t, err)
	build := exec.Command("go", "build", "-o", program, "./sdk/acceptance/server")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the server: %v\n%s", err, out)
	}
	text, err := exec.Command(program, "--list").Output()
	check(t, err)
	var list struct {
		Cases []testCase `json:"cases"`
	}
	check(t, json.Unmarshal(text, &list))
	r := &runner{saved: map[string]any{}, clients: map[string]*clipper.Client{}}
	r.start(t, program)
	for _, c := range list.Cases {
		t.Run(c.Name, func(t *testing.T) { r.run(t, c) })
	}
}

type testCase struct {
	Name, Server, Call     string
	Request, Expect, Error object
	Save                   map[string]string
}

type runner struct {
	saved   map[string]any
	clients map[string]*clipper.Client // By server.
}

// start runs the server and connects to all that it has.
func (r *runner) start(t *testing.T, program string) {
	server := exec.Command(program)
	stdin, err := server.StdinPipe()
	check(t, err)
	stdout, err := server.StdoutPipe()
	check(t, err)
	var logs bytes.Buffer
	server.Stderr = &logs
	check(t, server.Start())
	t.Cleanup(func() {
		check(t, stdin.Close())
		if err := server.Wait(); err != nil || t.Failed() {
			t.Errorf("the server: %v\n%s", err, logs.String())
		}
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	check(t, err)
	var at map[string]string
	check(t, json.Unmarshal(line, &at))
	r.saved["container"] = at["container"]
	secure := clipper.Config{Address: at["secure_grpc"], CAFile: at["ca_file"], CertFile: at["cert_file"], KeyFile: at["key_file"], APIKey: at["api_key"]}
	keyless := secure
	keyless.APIKey = ""
	for name, cfg := range map[string]clipper.Config{
		"": {Address: at["query_grpc"], AdminAddress: at["admin_grpc"]}, "canned": {Address: at["canned_grpc"]},
		"secure": secure, "keyless": keyless,
	} {
		client, err := clipper.New(cfg)
		check(t, err)
		r.clients[name] = client
		t.Cleanup(func() { check(t, client.Close()) })
	}
}

func (r *runner) run(t *testing.T, c testCase) {
	client := r.clients[c.Server]
	request := r.fill(c.Request).(object)
	answer, err := r.call(t, client, c.Call, request)
	if c.Error != nil {
		var e *clipper.Error
		if !errors.As(err, &e) {
			t.Fatalf("want an error, have %v and %v", answer, err)
		}
		mismatch(t, "error", errorObject(e), c.Error)
		return
	}
	check(t, err)
	for key, want := range c.Expect {
		mismatch(t, key, answer[key], r.fill(want))
	}
	for name, path := range c.Save {
		var at any = answer
		for _, key := range strings.Split(path, ".") {
			at = at.(object)[key]
		}
		r.saved[name] = at
	}
}

// fill replaces each "$name" by what was saved.
func (r *runner) fill(v any) any {
	switch v := v.(type) {
	case string:
		if saved, ok := r.saved[strings.TrimPrefix(v, "$")]; ok && strings.HasPrefix(v, "$") {
			return saved
		}
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = r.fill(v[i])
		}
		return out
	case object:
		out := object{}
		for key := range v {
			out[key] = r.fill(v[key])
		}
		return out
	}
	return v
}

// call makes the call of a case, as a program would.
func (r *runner) call(t *testing.T, c *clipper.Client, call string, q object) (object, error) {
	ctx := t.Context()
	application := text(q["application"])
	model, version := text(q["model"]), text(q["version"])
	switch call {
	case "query":
		a, err := c.Query(ctx, queryOf(t, application, q))
		return answerObject(t, a), err
	case "query_batch":
		req := &clipper.QueryBatchRequest{Application: application}
		for _, item := range q["queries"].([]any) {
			one := queryOf(t, "", item.(object))
			req.Queries = append(req.Queries, &clipper.BatchQuery{Inputs: one.Inputs, InputJson: one.InputJson, Context: one.Context, Id: one.Id, Priority: one.Priority})
		}
		a, err := c.QueryBatch(ctx, req)
		results := []any{}
		for _, item := range a.GetResults() {
			results = append(results, resultObject(t, item.GetResponse(), clipper.ItemError(item.GetError())))
		}
		return object{"results": results}, err
	case "query_stream":
		return r.stream(t, c, q["queries"].([]any))
	case "feedback":
		a, err := c.Feedback(ctx, feedbackOf(t, application, q))
		return protoObject(t, a), err
	case "feedback_batch":
		req := &clipperv1.FeedbackBatchRequest{Application: application}
		for _, item := range q["items"].([]any) {
			req.Items = append(req.Items, feedbackOf(t, "", item.(object)))
		}
		a, err := c.FeedbackBatch(ctx, req)
		results := []any{}
		for _, item := range a.GetResults() {
			if e := clipper.ItemError(item.GetError()); e != nil {
				results = append(results, resultObject(t, nil, e))
			} else {
				results = append(results, protoObject(t, item.GetResponse()))
			}
		}
		return object{"results": results}, err
	case "create_application":
		req := &clipperv1.CreateApplicationRequest{Application: &clipper.Application{}}
		read(t, q["application"], req.Application)
		a, err := c.CreateApplication(ctx, req)
		return protoObject(t, a), err
	case "update_application":
		req := &clipperv1.UpdateApplicationRequest{Application: &clipper.Application{}, ResetState: q["reset_state"] == true, UpdateMask: &fieldmaskpb.FieldMask{}}
		read(t, q["application"], req.Application)
		for _, path := range q["update_mask"].([]any) {
			req.UpdateMask.Paths = append(req.UpdateMask.Paths, path.(string))
		}
		a, err := c.UpdateApplication(ctx, req)
		return protoObject(t, a), err
	case "get_application":
		a, err := c.GetApplication(ctx, &clipperv1.GetApplicationRequest{Application: application})
		return protoObject(t, a), err
	case "delete_application":
		a, err := c.DeleteApplication(ctx, &clipperv1.DeleteApplicationRequest{Application: application, Etag: text(q["etag"])})
		return protoObject(t, a), err
	case "list_applications":
		all := []any{}
		for a, err := range c.Applications(ctx, int(q["page_size"].(float64))) {
			if err != nil {
				return nil, err
			}
			all = append(all, protoObject(t, a))
		}
		return object{"applications": all}, nil
	case "list_models":
		all := []any{}
		for m, err := range c.Models(ctx, int(q["page_size"].(float64))) {
			if err != nil {
				return nil, err
			}
			all = append(all, protoObject(t, m))
		}
		return object{"models": all}, nil
	case "get_selection_state":
		a, err := c.GetSelectionState(ctx, &clipperv1.GetSelectionStateRequest{Application: application, Context: text(q["context"])})
		return protoObject(t, a), err
	case "reset_selection_state":
		a, err := c.ResetSelectionState(ctx, &clipperv1.ResetSelectionStateRequest{Application: application, Context: text(q["context"])})
		return protoObject(t, a), err
	case "get_canary":
		a, err := c.GetCanary(ctx, &clipperv1.GetCanaryRequest{Application: application})
		return protoObject(t, a), err
	case "deploy_model":
		req := &clipper.DeployModelRequest{Version: &clipper.ModelVersion{}, KeepCurrent: q["keep_current"] == true}
		read(t, q["version"], req.Version)
		a, err := c.DeployModel(ctx, req)
		return protoObject(t, a), err
	case "wait_model_ready":
		v, err := c.WaitModelReady(ctx, model, version)
		return object{"version": protoObject(t, v)}, err
	case "get_model":
		a, err := c.GetModel(ctx, &clipperv1.GetModelRequest{Model: model})
		return protoObject(t, a), err
	case "get_model_version":
		a, err := c.GetModelVersion(ctx, &clipperv1.GetModelVersionRequest{Model: model, Version: version})
		return protoObject(t, a), err
	case "update_model_version":
		a, err := c.UpdateModelVersion(ctx, &clipperv1.UpdateModelVersionRequest{Model: model, Version: version, Replicas: proto.Uint32(uint32(q["replicas"].(float64)))})
		return protoObject(t, a), err
	case "set_current_version":
		a, err := c.SetCurrentVersion(ctx, &clipperv1.SetCurrentVersionRequest{Model: model, Version: version})
		return protoObject(t, a), err
	case "delete_model_version":
		a, err := c.DeleteModelVersion(ctx, &clipperv1.DeleteModelVersionRequest{Model: model, Version: version})
		return protoObject(t, a), err
	case "delete_model":
		a, err := c.DeleteModel(ctx, &clipperv1.DeleteModelRequest{Model: model})
		return protoObject(t, a), err
	}
	t.Fatalf("there is no call %q", call)
	return nil, nil
}

// stream asks all at once over one stream.
func (r *runner) stream(t *testing.T, c *clipper.Client, queries []any) (object, error) {
	s, err := c.NewStream(t.Context())
	if err != nil {
		return nil, err
	}
	defer s.Close()
	results := make([]any, len(queries))
	done := make(chan struct{})
	for i, item := range queries {
		req := queryOf(t, text(item.(object)["application"]), item.(object))
		go func() {
			defer func() { done <- struct{}{} }()
			a, err := s.Query(context.WithoutCancel(t.Context()), req)
			results[i] = resultObject(t, a, err)
		}()
	}
	for range queries {
		<-done
	}
	return object{"results": results}, nil
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func read(t *testing.T, v any, m proto.Message) {
	t.Helper()
	b, err := json.Marshal(v)
	check(t, err)
	check(t, protojson.Unmarshal(b, m))
}

func queryOf(t *testing.T, application string, q object) *clipper.QueryRequest {
	t.Helper()
	req := &clipper.QueryRequest{
		Application: application, Inputs: tensorsOf(t, q["inputs"]), InputJson: []byte(text(q["input_json"])),
		Context: text(q["context"]), Id: text(q["id"]),
	}
	if p, ok := q["priority"].(float64); ok {
		req.Priority = uint32(p)
	}
	if ms, ok := q["timeout_ms"].(float64); ok {
		req.Timeout = durationpb.New(time.Duration(ms) * time.Millisecond)
	}
	return req
}

func feedbackOf(t *testing.T, application string, q object) *clipper.FeedbackRequest {
	t.Helper()
	req := &clipper.FeedbackRequest{
		Application: application, FeedbackId: text(q["feedback_id"]), Inputs: tensorsOf(t, q["inputs"]), InputJson: []byte(text(q["input_json"])),
		Context: text(q["context"]), Id: text(q["id"]),
	}
	if truth, ok := q["truth"]; ok {
		req.Observation = clipper.Truth(truth)
	}
	if reward, ok := q["reward"].(float64); ok {
		req.Observation = &clipper.Reward{Reward: reward}
	}
	return req
}

// tensorsOf makes tensors with the functions that programs use.
func tensorsOf(t *testing.T, v any) []*clipper.Tensor {
	t.Helper()
	list, _ := v.([]any)
	var out []*clipper.Tensor
	for _, item := range list {
		o := item.(object)
		var shape []int64
		for _, d := range o["shape"].([]any) {
			shape = append(shape, int64(d.(float64)))
		}
		out = append(out, clipper.Named(text(o["name"]), tensorOf(t, text(o["type"]), o["values"].([]any), shape)))
	}
	return out
}

func tensorOf(t *testing.T, kind string, values []any, shape []int64) *clipper.Tensor {
	t.Helper()
	switch kind {
	case "bool":
		return tensorFrom(values, shape, func(v any) bool { return v.(bool) })
	case "string":
		return tensorFrom(values, shape, text)
	case "bytes":
		return tensorFrom(values, shape, func(v any) []byte {
			b, err := base64.StdEncoding.DecodeString(text(v))
			check(t, err)
			return b
		})
	case "uint8":
		return tensorFrom(values, shape, func(v any) uint8 { return uint8(number(v)) })
	case "uint16":
		return tensorFrom(values, shape, func(v any) uint16 { return uint16(number(v)) })
	case "uint32":
		return tensorFrom(values, shape, func(v any) uint32 { return uint32(number(v)) })
	case "uint64":
		return tensorFrom(values, shape, func(v any) uint64 {
			if s, ok := v.(string); ok {
				n, err := strconv.ParseUint(s, 10, 64)
				check(t, err)
				return n
			}
			return uint64(number(v))
		})
	case "int8":
		return tensorFrom(values, shape, func(v any) int8 { return int8(number(v)) })
	case "int16":
		return tensorFrom(values, shape, func(v any) int16 { return int16(number(v)) })
	case "int32":
		return tensorFrom(values, shape, func(v any) int32 { return int32(number(v)) })
	case "int64":
		return tensorFrom(values, shape, func(v any) int64 {
			if s, ok := v.(string); ok {
				n, err := strconv.ParseInt(s, 10, 64)
				check(t, err)
				return n
			}
			return int64(number(v))
		})
	case "float32":
		return tensorFrom(values, shape, func(v any) float32 { return float32(number(v)) })
	case "float64":
		return tensorFrom(values, shape, number)
	}
	half := make([]float32, len(values))
	for i, v := range values {
		half[i] = float32(number(v))
	}
	var out *clipper.Tensor
	switch kind {
	case "float16":
		out = clipper.Float16(half, shape...)
	case "bfloat16":
		out = clipper.BFloat16(half, shape...)
	default:
		t.Fatalf("there is no type %q", kind)
	}
	return out
}

func tensorFrom[T clipper.Element](values []any, shape []int64, read func(any) T) *clipper.Tensor {
	out := make([]T, len(values))
	for i, v := range values {
		out[i] = read(v)
	}
	if len(shape) == 0 {
		return clipper.Scalar(out[0])
	}
	return clipper.NewTensor(out, shape...)
}

func number(v any) float64 {
	if v == "NaN" {
		return math.NaN()
	}
	return v.(float64)
}

func resultObject(t *testing.T, a *clipper.QueryResponse, err error) any {
	var e *clipper.Error
	if errors.As(err, &e) {
		return object{"error": errorObject(e)}
	}
	return answerObject(t, a)
}

func errorObject(e *clipper.Error) object {
	return object{"code": codeNames[e.Code], "reason": string(e.Reason), "field": e.Field, "message": e.Message, "retry_after_ms": float64(e.RetryAfter.Milliseconds())}
}

// codeNames are the codes as google.rpc.Code spells them.
var codeNames = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
	"FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

func answerObject(t *testing.T, a *clipper.QueryResponse) object {
	predictions := []any{}
	for _, p := range a.GetPredictions() {
		predictions = append(predictions, object{
			"model": p.GetModel(), "version": p.GetVersion(), "status": strings.TrimPrefix(p.GetStatus().String(), "PREDICTION_STATUS_"),
			"outputs": tensorObjects(t, p.GetOutputs()), "message": p.GetMessage(), "cached": p.GetCached(), "propensity": p.GetPropensity(), "shadow": p.GetShadow(),
		})
	}
	reason := strings.TrimPrefix(a.GetDefaultReason().String(), "DEFAULT_REASON_")
	if a.GetDefaultReason() == 0 {
		reason = ""
	}
	return object{
		"outputs": tensorObjects(t, a.GetOutputs()), "is_default": a.GetIsDefault(), "default_reason": reason, "confidence": a.GetConfidence(),
		"predictions": predictions, "feedback_id": a.GetFeedbackId(), "id": a.GetId(),
	}
}

func tensorObjects(t *testing.T, tensors []*clipper.Tensor) []any {
	out := []any{}
	for _, x := range tensors {
		shape := []any{}
		for _, d := range x.GetShape() {
			shape = append(shape, float64(d))
		}
		kind := strings.ToLower(strings.TrimPrefix(x.GetDataType().String(), "DATA_TYPE_"))
		out = append(out, object{"name": x.GetName(), "type": kind, "shape": shape, "values": valuesOf(t, kind, x)})
	}
	return out
}

func valuesOf(t *testing.T, kind string, x *clipper.Tensor) []any {
	switch kind {
	case "bool":
		return valuesFrom(t, x, func(v bool) any { return v })
	case "string":
		return valuesFrom(t, x, func(v string) any { return v })
	case "bytes":
		return valuesFrom(t, x, func(v []byte) any { return base64.StdEncoding.EncodeToString(v) })
	case "uint8":
		return valuesFrom(t, x, func(v uint8) any { return float64(v) })
	case "uint16":
		return valuesFrom(t, x, func(v uint16) any { return float64(v) })
	case "uint32":
		return valuesFrom(t, x, func(v uint32) any { return float64(v) })
	case "uint64":
		return valuesFrom(t, x, func(v uint64) any {
			if v > 1<<53 {
				return strconv.FormatUint(v, 10)
			}
			return float64(v)
		})
	case "int8":
		return valuesFrom(t, x, func(v int8) any { return float64(v) })
	case "int16":
		return valuesFrom(t, x, func(v int16) any { return float64(v) })
	case "int32":
		return valuesFrom(t, x, func(v int32) any { return float64(v) })
	case "int64":
		return valuesFrom(t, x, func(v int64) any {
			if v > 1<<53 || v < -1<<53 {
				return strconv.FormatInt(v, 10)
			}
			return float64(v)
		})
	case "float64":
		return valuesFrom(t, x, func(v float64) any { return v })
	}
	return valuesFrom(t, x, func(v float32) any { return float64(v) })
}

func valuesFrom[T clipper.Element](t *testing.T, x *clipper.Tensor, write func(T) any) []any {
	values, err := clipper.Values[T](x)
	check(t, err)
	out := []any{}
	for _, v := range values {
		out = append(out, write(v))
	}
	return out
}

func protoObject(t *testing.T, m proto.Message) object {
	t.Helper()
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	check(t, err)
	var o object
	check(t, json.Unmarshal(b, &o))
	return o
}

// mismatch fails when what is there does not match what is wanted.
func mismatch(t *testing.T, path string, have, want any) {
	t.Helper()
	if problem := matches(path, have, want); problem != "" {
		t.Error(problem)
	}
}

func matches(path string, have, want any) string {
	switch want := want.(type) {
	case object:
		o, _ := have.(object)
		for key := range want {
			if key == "http" || key == "rest_field" {
				continue
			}
			if problem := matches(path+"."+key, o[key], want[key]); problem != "" {
				return problem
			}
		}
		return ""
	case []any:
		list, _ := have.([]any)
		if len(want) > 0 && want[0] == "$includes" {
			for _, w := range want[1:] {
				found := false
				for _, h := range list {
					found = found || matches(path, h, w) == ""
				}
				if !found {
					return fmt.Sprintf("%s: none of %v is %v", path, list, w)
				}
			}
			return ""
		}
		if len(list) != len(want) {
			return fmt.Sprintf("%s: have %v, want %v", path, list, want)
		}
		for i := range want {
			if problem := matches(fmt.Sprintf("%s[%d]", path, i), list[i], want[i]); problem != "" {
				return problem
			}
		}
		return ""
	case string:
		if want == "$any" {
			if isNothing(have) {
				return path + ": is empty"
			}
			return ""
		}
	}
	if have == nil && isNothing(want) || reflect.DeepEqual(have, want) {
		return ""
	}
	return fmt.Sprintf("%s: have %v, want %v", path, have, want)
}

func isNothing(v any) bool {
	return v == nil || v == "" || v == false || v == 0.0
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
