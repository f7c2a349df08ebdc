// SPDX-License-Identifier: Apache-2.0

package acceptance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// object is a JSON object.
type object = map[string]any

// TestREST runs the list over REST, as curl sends it.
func TestREST(t *testing.T) {
	l, err := Load()
	require.NoError(t, err)
	r := &curl{at: startServer(t), saved: map[string]any{}}
	r.saved["container"] = r.at["container"]
	for _, c := range l.Cases {
		// Over REST, a reason that this server does not know is not passed on.
		known := c.Error == nil || c.Error.Reason == "" || clipperv1.ErrorReason_value["ERROR_REASON_"+c.Error.Reason] != 0
		if c.Over != "grpc" && known {
			t.Run(c.Name, func(t *testing.T) { r.run(t, c) })
		}
	}
}

// startServer starts the server of the list and returns where it is.
func startServer(t *testing.T) map[string]string {
	program := filepath.Join(t.TempDir(), "server")
	out, err := exec.Command("go", "build", "-o", program, "./server").CombinedOutput()
	require.NoError(t, err, string(out))
	server := exec.Command(program)
	stdin, err := server.StdinPipe()
	require.NoError(t, err)
	stdout, err := server.StdoutPipe()
	require.NoError(t, err)
	var logs bytes.Buffer
	server.Stderr = &logs
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		require.NoError(t, stdin.Close())
		require.NoError(t, server.Wait(), logs.String())
		if t.Failed() {
			t.Log(logs.String())
		}
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	require.NoError(t, err)
	var at map[string]string
	require.NoError(t, json.Unmarshal(line, &at))
	return at
}

type curl struct {
	at    map[string]string
	saved map[string]any
}

func (r *curl) run(t *testing.T, c Case) {
	status, answer := r.call(t, c, r.fill(c.Request).(object))
	if c.Error != nil {
		require.Equal(t, c.Error.HTTP, status, answer)
		e, ok := answer["error"].(object)
		if !ok { // RFC 9457.
			e = answer
		}
		want := object{"code": c.Error.Code, "reason": c.Error.Reason}
		if field := c.Error.Field; field != "" {
			want["field"] = field
		}
		if c.Error.RESTField != "" {
			want["field"] = c.Error.RESTField
		}
		if c.Error.RetryAfterMS != nil {
			want["retry_after_ms"] = c.Error.RetryAfterMS
		}
		require.Empty(t, matches("error", e, want), answer)
		return
	}
	require.Equal(t, 200, status, answer)
	require.Empty(t, matches("", answer, expected(r.fill(c.Expect))), answer)
	for name, path := range c.Save {
		var at any = answer
		for _, key := range strings.Split(path, ".") {
			at = at.(object)[key]
		}
		r.saved[name] = at
	}
}

// fill replaces each "$name" by what was saved.
func (r *curl) fill(v any) any {
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

// call makes the request of a case and returns the answer in the form of the list.
func (r *curl) call(t *testing.T, c Case, q object) (status int, answer object) {
	t.Helper()
	query, admin := r.at["query_http"], r.at["admin_http"]
	if c.Server == "canned" {
		query = r.at["canned_http"]
	}
	text := func(key string) string { return url.PathEscape(fmt.Sprint(q[key])) }
	application := query + "/v1/applications/" + text("application")
	administered := admin + "/v1/applications/" + text("application")
	model := admin + "/v1/models/" + text("model")
	version := model + "/versions/" + text("version")
	context := ""
	if q["context"] != nil {
		context = "?context=" + url.QueryEscape(fmt.Sprint(q["context"]))
	}
	switch c.Call {
	case "query":
		return do(t, "POST", application+"/query", questionOf(t, q))
	case "query_batch":
		status, answer := do(t, "POST", application+"/query-batch", listOf(t, "queries", q["queries"].([]any)))
		return status, unwrapped(answer)
	case "feedback":
		return do(t, "POST", application+"/feedback", questionOf(t, q))
	case "feedback_batch":
		status, answer := do(t, "POST", application+"/feedback-batch", listOf(t, "items", q["items"].([]any)))
		return status, unwrapped(answer)
	case "create_application":
		return do(t, "POST", admin+"/v1/applications", jsonOf(t, q["application"]))
	case "update_application":
		change := q["application"].(object)
		name := change["name"]
		delete(change, "name")
		return do(t, "PATCH", admin+"/v1/applications/"+url.PathEscape(name.(string)), jsonOf(t, change))
	case "get_application":
		return do(t, "GET", administered, "")
	case "delete_application":
		if q["etag"] != nil {
			administered += "?etag=" + url.QueryEscape(q["etag"].(string))
		}
		return do(t, "DELETE", administered, "")
	case "list_applications":
		return pages(t, admin+"/v1/applications", "applications", q["page_size"])
	case "list_models":
		return pages(t, admin+"/v1/models", "models", q["page_size"])
	case "get_selection_state":
		return do(t, "GET", administered+"/state"+context, "")
	case "reset_selection_state":
		return do(t, "DELETE", administered+"/state"+context, "")
	case "get_canary":
		return do(t, "GET", administered+"/canary", "")
	case "deploy_model":
		return do(t, "POST", admin+"/v1/models", jsonOf(t, q))
	case "wait_model_ready":
		require.Eventually(t, func() bool {
			status, answer = do(t, "GET", version, "")
			return status != 200 || answer["version"].(object)["state"] == "MODEL_STATE_READY"
		}, time.Minute, 50*time.Millisecond)
		return status, answer
	case "get_model":
		return do(t, "GET", model, "")
	case "get_model_version":
		return do(t, "GET", version, "")
	case "update_model_version":
		return do(t, "PATCH", version, jsonOf(t, object{"replicas": q["replicas"]}))
	case "set_current_version":
		return do(t, "PUT", model+"/current-version", jsonOf(t, object{"version": q["version"]}))
	case "delete_model_version":
		return do(t, "DELETE", version, "")
	case "delete_model":
		return do(t, "DELETE", model, "")
	}
	require.Fail(t, "there is no call "+c.Call)
	return 0, nil
}

// do runs curl.
func do(t *testing.T, method, address, body string) (status int, answer object) {
	t.Helper()
	cmd := exec.Command("curl", "--silent", "--show-error", "--max-time", "60", "--write-out", "\n%{http_code}", "--request", method, address)
	if body != "" {
		cmd.Args = append(cmd.Args, "--data-binary", "@-")
		cmd.Stdin = strings.NewReader(body)
	}
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.Output()
	require.NoError(t, err, problem.String())
	at := bytes.LastIndexByte(out, '\n')
	status, err = strconv.Atoi(string(out[at+1:]))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(out[:at], &answer), string(out))
	return status, answer
}

// pages reads a list to its end.
func pages(t *testing.T, address, key string, size any) (int, object) {
	t.Helper()
	all, token := []any{}, ""
	for {
		status, page := do(t, "GET", fmt.Sprintf("%s?page_size=%v&page_token=%s", address, size, url.QueryEscape(token)), "")
		if status != 200 {
			return status, page
		}
		all = append(all, page[key].([]any)...)
		if token, _ = page["next_page_token"].(string); token == "" {
			return status, object{key: all}
		}
	}
}

// unwrapped returns a batch's results as the list has them: an answer, or its error.
func unwrapped(answer object) object {
	results, _ := answer["results"].([]any)
	for i, result := range results {
		if response, ok := result.(object)["response"]; ok {
			results[i] = response
		}
	}
	return answer
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return string(b)
}

func listOf(t *testing.T, key string, items []any) string {
	t.Helper()
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = questionOf(t, item.(object))
	}
	return fmt.Sprintf("{%q: [%s]}", key, strings.Join(texts, ", "))
}

// questionOf is a query or a feedback; its input is JSON text that need not be well formed.
func questionOf(t *testing.T, q object) string {
	t.Helper()
	var members []string
	for _, key := range []string{"feedback_id", "context", "id", "priority", "truth", "reward"} {
		if v, ok := q[key]; ok {
			members = append(members, fmt.Sprintf("%q: %s", key, jsonOf(t, v)))
		}
	}
	if ms, ok := q["timeout_ms"].(float64); ok {
		members = append(members, fmt.Sprintf(`"timeout": "%gs"`, ms/1000))
	}
	if text, ok := q["input_json"].(string); ok {
		members = append(members, `"input": `+text)
	} else if inputs, ok := q["inputs"].([]any); ok {
		members = append(members, `"input": `+jsonOf(t, natural(inputs)))
	}
	return "{" + strings.Join(members, ", ") + "}"
}

// natural returns tensors as REST writes them: one as a value, several as an object by name.
func natural(tensors []any) any {
	if len(tensors) == 1 {
		return nested(tensors[0].(object))
	}
	out := object{}
	for _, x := range tensors {
		if name, ok := x.(object)["name"].(string); ok && x.(object)["values"] != nil {
			out[name] = nested(x.(object))
		}
	}
	return out
}

func nested(x object) any {
	values := x["values"].([]any)
	if x["type"] == "bytes" {
		values = append([]any{}, values...)
		for i := range values {
			values[i] = object{"b64": values[i]}
		}
	}
	shape, _ := x["shape"].([]any)
	if len(shape) == 0 {
		return values[0]
	}
	for i := len(shape) - 1; i > 0; i-- { // The outermost dimension is what remains.
		n := int(shape[i].(float64))
		rows := []any{}
		for at := 0; at+n <= len(values); at += n {
			rows = append(rows, values[at:at+n])
		}
		values = rows
	}
	return values
}

// expected returns an expectation as REST writes an answer.
func expected(v any) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = expected(v[i])
		}
		return out
	case object:
		out := object{}
		for key, value := range v {
			switch {
			case key == "outputs" && isTensors(value):
				out["output"] = natural(value.([]any))
			case key == "outputs" && len(value.([]any)) == 0: // Then there is no output.
			case key == "default_reason" && value != "" && value != "$any":
				out[key] = "DEFAULT_REASON_" + value.(string)
			case key == "status":
				out[key] = "PREDICTION_STATUS_" + value.(string)
			default:
				out[key] = expected(value)
			}
		}
		return out
	}
	return v
}

// isTensors tells the outputs of an answer from those of a signature.
func isTensors(v any) bool {
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return false
	}
	for _, x := range list {
		if _, ok := x.(object)["values"]; ok {
			return true
		}
	}
	return false
}

// matches says how what is there does not match what is wanted, or nothing.
func matches(path string, have, want any) string {
	switch want := want.(type) {
	case object:
		o, _ := have.(object)
		for key := range want {
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
	}
	if want == "$any" {
		if isNothing(have) {
			return path + ": is empty"
		}
		return ""
	}
	if have == nil && isNothing(want) || reflect.DeepEqual(have, want) {
		return ""
	}
	return fmt.Sprintf("%s: have %v, want %v", path, have, want)
}

func isNothing(v any) bool { return v == nil || v == "" || v == false || v == 0.0 }

// TestList_hasEveryReason holds the list against the error model.
func TestList_hasEveryReason(t *testing.T) {
	l, err := Load()
	require.NoError(t, err)
	names, reasons := map[string]bool{}, map[string]bool{}
	for _, c := range l.Cases {
		require.False(t, names[c.Name], "two cases are called %q", c.Name)
		names[c.Name] = true
		require.NotEqual(t, c.Error == nil, c.Expect == nil, "%s: want an answer or an error", c.Name)
		if c.Error != nil {
			reasons[c.Error.Reason] = true
		}
	}
	for value, name := range clipperv1.ErrorReason_name {
		if value != 0 {
			require.Contains(t, reasons, strings.TrimPrefix(name, "ERROR_REASON_"), "no case provokes it")
		}
	}
}
