// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var queryID = regexp.MustCompile(`"query_id":\d+`)

// legacy calls the API of the original Clipper. Ids of queries become N.
func (s *system) legacy(t require.TestingT, method, url, body string) (int, string) {
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, "application/json", response.Header.Get("Content-Type"))
	return response.StatusCode, queryID.ReplaceAllString(string(text), `"query_id":N`)
}

// testLegacy calls everything that the original Clipper's APIs have, in an order in which each answer
// follows from what was called before. What contains "..." is compared up to there.
func testLegacy(t *testing.T, s *system) {
	s.deploy(t, "legacy-m", nil)
	const (
		schema      = ". Expected JSON schema: \n  {\n"
		querySchema = `. Expected JSON schema: \n  {\n   \"input\" := [double] | [int] | [string] | [byte] | [float],\n  }\n"}`
		addModel    = `{"model_name":"legacy-n","model_version":"1","labels":[],"input_type":"ints","container_name":"c","model_data_path":"p","batch_size":-1}`
		noModel     = `{"query_id":N,"output":{"a":[1,-1.0]},"default":true,"default_explanation":"No connected models found for query"}`
	)
	for _, step := range []struct {
		path, body string
		code       int
		want       string
	}{
		{"GET /admin/ping", "", 200, "PONG"},
		{"POST /admin/ping", "", 405, "Use GET for /admin/ping"},
		{"GET /admin/add_app", "", 405, "Use POST for /admin/add_app"},
		{"POST /admin/add_container", "{}", 404, "There is nothing at /admin/add_container"},
		{"POST /admin", "{}", 404, "There is nothing at /admin"},

		{"POST /admin/add_app", `{"name":"legacy-a"}`, 400, "Error parsing JSON: JSON object does not have required key: input_type" + schema + "..."},
		{"POST /admin/add_app", `[]`, 400, "Error parsing JSON: JSON object does not have required key: name" + schema + "..."},
		{"POST /admin/add_app", ``, 400, "Error parsing JSON: JSON parse error: The document is empty. (offset 0)\n" + schema + "..."},
		{"POST /admin/add_app", `{"name":7}`, 400, "Error parsing JSON: Type mismatch! JSON key name expected type Stringbut found type Number" + schema + "..."},
		{"POST /admin/add_app", `{"name":"legacy-a","input_type":"d","default_output":"0","latency_slo_micros":1.5}`, 400, "Error parsing JSON: Input of type Number is not of type int" + schema + "..."},
		{"POST /admin/add_app", `{"name":"legacy-a","input_type":"tensor","default_output":"0","latency_slo_micros":20000000}`, 400, "Invalid input type: 'tensor' is not bytes, integers, floats, doubles or strings"},
		{"POST /admin/add_app", `{"name":"le(ga","input_type":"d","default_output":"0","latency_slo_micros":20000000}`, 400, `name: want 1 to 63 letters, digits, '.', '_' or '-', starting with a letter or digit, not "le(ga"`},
		{"POST /admin/add_app", `{"name":"legacy-a","input_type":"d","default_output":"0","latency_slo_micros":0}`, 400, "latency_objective: it is 0s, want 1ms to 1h0m0s"},
		{"POST /admin/add_app", `{"name":"legacy-a","input_type":"double","default_output":"{\"a\": [1, -1.0]}","latency_slo_micros":20000000}`, 200, "Successfully added application with name 'legacy-a'"},
		{"POST /admin/add_app", `{"name":"legacy-a","input_type":"i","default_output":"","latency_slo_micros":20000000}`, 400, "application 'legacy-a' already exists"},
		{"POST /admin/get_application", `{"name":"legacy-a"}`, 200, `{"input_type":"doubles","default_output":"{\"a\": [1, -1.0]}","latency_slo_micros":20000000,"name":"legacy-a","linked_models":[]}`},
		{"POST /admin/get_application", `{"name":"legacy-none"}`, 200, `{}`},
		{"POST /admin/get_application", `{"name":"no name"}`, 200, `{}`},
		{"POST /admin/get_all_applications", `{"verbose":0}`, 400, "Error parsing JSON: Input of type Number is not of type bool" + schema + "..."},
		{"POST /admin/get_state", `{"app_name":"legacy-a","uid":3}`, 200, `{"a": [1, -1.0]}`},
		{"POST /admin/get_state", `{"app_name":"legacy-none","uid":3}`, 200, ``},
		{"POST /admin/get_linked_models", `{"app_name":"legacy-a"}`, 200, `[]`},
		{"POST /admin/get_linked_models", `{"app_name":"legacy-none"}`, 400, "No application with name 'legacy-none' exists."},
		{"POST /legacy-a/predict", `{"input":[1.0,2.0]}`, 200, noModel},
		{"POST /legacy-a/predict", `{"input":[1.0,2.0],"version":"1"}`, 200, noModel},

		{"POST /admin/add_model", strings.Replace(addModel, `,"batch_size":-1`, "", 1), 400, "Error parsing JSON: JSON object does not have required key: batch_size" + schema + "..."},
		{"POST /admin/add_model", strings.Replace(addModel, `:-1`, `:0`, 1), 400, "The batch size must be positive or DEFAULT_BATCH_SIZE, which is -1"},
		{"POST /admin/add_model", strings.Replace(addModel, `"ints"`, `"int8"`, 1), 400, "Invalid input type: 'int8' is not bytes, integers, floats, doubles or strings"},
		{"POST /admin/add_model", strings.Replace(addModel, `"legacy-n"`, `"a:b"`, 1), 400, "Invalid model name supplied: a:b. Contains one of: ',', ':'"},
		{"POST /admin/add_model", strings.Replace(addModel, `"1"`, `"1,2"`, 1), 400, "Invalid model version supplied: 1,2. Contains one of: ',', ':'"},
		{"POST /admin/add_model", strings.Replace(addModel, `[]`, `["a:b"]`, 1), 400, "Invalid label supplied: a:b. Contains one of: ',', ':'"},
		{"POST /admin/add_model", strings.Replace(addModel, `[]`, `[1]`, 1), 400, "Error parsing JSON: Array input of type Number is not of type string" + schema + "..."},
		{"POST /admin/add_model", addModel, 200, "Successfully added model with name 'legacy-n' and input type 'integers'"},
		{"POST /admin/add_model", addModel, 400, "model with name 'legacy-n' and version '1' already exists"},
		{"POST /admin/get_model", `{"model_name":"legacy-n","model_version":"1"}`, 200, `{"model_name":"legacy-n","model_version":"1","input_type":"integers","labels":[""],"container_name":"c","model_data_path":"p","is_current_version":true}`},
		{"POST /admin/get_model", `{"model_name":"legacy-n","model_version":"2"}`, 200, `{}`},
		{"POST /admin/get_model", `{"model_name":"legacy-none","model_version":"2"}`, 200, `{}`},
		{"POST /admin/get_model", `{"model_name":"legacy-m","model_version":"1"}`, 200, `{"model_name":"legacy-m","model_version":"1","input_type":"doubles","labels":[""],"container_name":"","model_data_path":"","is_current_version":true}`},
		{"POST /admin/add_model", strings.Replace(strings.Replace(addModel, `"1"`, `"2"`, 1), `[]`, `["x","y"]`, 1), 200, "Successfully added model with name 'legacy-n' and input type 'integers'"},
		{"POST /admin/get_model", `{"model_name":"legacy-n","model_version":"2"}`, 200, `{"model_name":"legacy-n","model_version":"2","input_type":"integers","labels":["x","y"],"container_name":"c","model_data_path":"p","is_current_version":true}`},
		{"POST /admin/set_model_version", `{"model_name":"legacy-none","model_version":"1"}`, 400, "Cannot set version for nonexistent model 'legacy-none'"},
		{"POST /admin/set_model_version", `{"model_name":"legacy-n","model_version":"9"}`, 400, "Cannot set non-existent version '9' for model with name 'legacy-n'"},
		{"POST /admin/set_model_version", `{"model_name":"legacy-n","model_version":"1"}`, 200, "Successfully set model with name 'legacy-n' to version '1'"},
		{"POST /admin/get_all_containers", `{}`, 400, "Error parsing JSON: JSON object does not have required key: verbose" + schema + "..."},
		{"POST /admin/get_container", `{"model_name":"legacy-m","model_version":"1","replica_id":0}`, 200, `{"model_id":"legacy-m:1","model_name":"legacy-m","model_version":"1","model_replica_id":0,"input_type":"doubles"}`},
		{"POST /admin/get_container", `{"model_name":"legacy-m","model_version":"1","replica_id":1}`, 200, `{}`},
		{"POST /admin/get_container", `{"model_name":"legacy-n","model_version":"1","replica_id":0}`, 200, `{}`},

		{"POST /admin/add_model_links", `{"app_name":"legacy-none","model_names":["legacy-m"]}`, 400, "No app with name 'legacy-none' exists."},
		{"POST /admin/add_model_links", `{"app_name":"legacy-a","model_names":["legacy-m","legacy-none"]}`, 400, "No model with name 'legacy-none' exists."},
		{"POST /admin/add_model_links", `{"app_name":"legacy-a","model_names":["legacy-n"]}`, 400, "Model with name 'legacy-n' has incompatible input_type 'integers'. Requested app to link to has input_type 'doubles'."},
		{"POST /admin/add_model_links", `{"app_name":"legacy-a","model_names":["legacy-m","legacy-m"]}`, 400, "Applications must be linked with at most one model. Attempted to add links to 2 models."},
		{"POST /admin/add_model_links", `{"app_name":"legacy-a","model_names":[]}`, 400, "Please provide the name of the model that you want to link to the application 'legacy-a'"},
		{"POST /admin/add_model_links", `{"app_name":"legacy-a","model_names":["legacy-m"]}`, 200, "Successfully linked model with name 'legacy-m' to application 'legacy-a'"},
		{"POST /admin/add_model_links", `{"app_name":"legacy-a","model_names":["legacy-m"]}`, 400, "The model with name 'legacy-m' is already linked to 'legacy-a'"},
		{"POST /admin/add_model", strings.Replace(addModel, "legacy-n", "legacy-d", 1), 200, "Successfully added model with name 'legacy-d' and input type 'integers'"},
		{"POST /admin/add_model", strings.Replace(strings.Replace(addModel, "legacy-n", "legacy-m", 1), `"1"`, `"2"`, 1), 400, "Model with name 'legacy-m' is already linked to app 'legacy-a' using input type 'doubles'. The input type you provided for a new version of the model, 'integers', is not compatible."},
		{"POST /admin/add_model", strings.Replace(strings.Replace(addModel, "legacy-n", "legacy-o", 1), `"ints"`, `"d"`, 1), 200, "Successfully added model with name 'legacy-o' and input type 'doubles'"},
		{"POST /admin/add_model_links", `{"app_name":"legacy-a","model_names":["legacy-o"]}`, 400, "A model with name legacy-m is already linked to 'legacy-a'."},
		{"POST /admin/get_linked_models", `{"app_name":"legacy-a"}`, 200, `["legacy-m"]`},
		{"POST /admin/get_application", `{"name":"legacy-a"}`, 200, `{"input_type":"doubles","default_output":"{\"a\": [1, -1.0]}","latency_slo_micros":20000000,"name":"legacy-a","linked_models":["legacy-m"]}`},

		{"POST /legacy-a/predict", `{"input":[7.0,0.0]}`, 200, `{"query_id":N,"output":7,"default":false}`},
		{"POST /legacy-a/predict/", `{"input":[7.0,0.0]}`, 200, `{"query_id":N,"output":7,"default":false}`},
		{"POST /legacy-a/predict", `{"input":[7.0,0.0],"input_batch":7}`, 200, `{"query_id":N,"output":7,"default":false}`},
		{"POST /legacy-a/predict", `{"input":[8.0,0.0],"version":"1"}`, 200, `{"query_id":N,"output":8,"default":false}`},
		{"POST /legacy-a/predict", `{"input":[8.0,0.0],"version":"9"}`, 400, `{"error":"Query processing error","cause":"Requested version: 9 does not exist for model: legacy-m"}`},
		{"POST /legacy-a/predict", `{"input":[8.0,0.0],"version":"no version"}`, 400, `{"error":"Query processing error","cause":"Requested version: no version does not exist for model: legacy-m"}`},
		{"POST /legacy-a/predict", `{"input_batch":[[7.0,0.0],[8.0,0.0]]}`, 200, `{"batch_predictions":[{"query_id":N,"output":7,"default":false},{"query_id":N,"output":8,"default":false}]}`},
		{"POST /legacy-a/predict", `{"input_batch":[[7.0,0.0]]}`, 200, `{"query_id":N,"output":7,"default":false}`},
		{"POST /legacy-a/predict", `{"input_batch":[]}`, 200, `{"batch_predictions":[]}`},
		{"POST /legacy-a/predict", `{"input":[-1.0,0.0]}`, 200, `{"query_id":N,"output":{"a":[1,-1.0]},"default":true,"default_explanation":"Failed to retrieve a prediction response within the specified latency SLO"}`},
		{"POST /legacy-a/predict", `{"input":[]}`, 400, `{"error":"Query processing error","cause":"inputs[0] has no elements: shape [0]"}`},
		{"POST /legacy-a/predict", `{"input":[1,2]}`, 400, `{"error":"Json error","cause":"Error parsing JSON: Array input of type Number is not of type double` + querySchema},
		{"POST /legacy-a/predict", `{"input":"x"}`, 400, `{"error":"Json error","cause":"Error parsing JSON: Type mismatch! JSON key input expected type Arraybut found type String` + querySchema},
		{"POST /legacy-a/predict", `{"input_batch":[1.0]}`, 400, `{"error":"Json error","cause":"Error parsing JSON: Array input of type Number is not of type array` + querySchema},
		{"POST /legacy-a/predict", `{}`, 400, `{"error":"Json error","cause":"Error parsing JSON: JSON object does not have required keys input or input_batch` + querySchema},
		{"POST /legacy-a/predict", `{"input":[1.0`, 400, `{"error":"Json error","cause":"Error parsing JSON: JSON parse error: Missing a comma or ] after an array element. (offset 13)\n` + querySchema},
		{"POST /legacy-none/predict", `{}`, 404, "There is nothing at /legacy-none/predict"},
		{"POST /legacy.a/predict", `{}`, 404, "There is nothing at /legacy.a/predict"},
		{"GET /legacy-a/predict", ``, 405, "Use POST for /legacy-a/predict"},
		{"POST /legacy-a/update", `{"uid":0,"input":[1.0],"label":1.0}`, 200, "Feedback received? 1"},
		{"POST /legacy-a/update/", `{"uid":4,"input":[1.0],"label":1.0}`, 200, "Feedback received? 0"},
		{"POST /legacy-a/update", `{"uid":0,"input":[1.0],"label":1}`, 400, "Error parsing JSON: Input of type Number is not of type double" + schema + "..."},
		{"POST /legacy-a/update", `{"uid":"0","input":[1.0],"label":1.0}`, 400, "Error parsing JSON: Input of type String is not of type int" + schema + "..."},
		{"POST /metrics", ``, 405, "Use GET for /metrics"},

		{"POST /admin/delete_model_links", `{"app_name":"legacy-none","model_names":["legacy-m"]}`, 400, "No app with name legacy-none exists."},
		{"POST /admin/delete_model_links", `{"app_name":"legacy-a","model_names":["legacy-o"]}`, 400, "Cannot remove nonexistent link between app legacy-a and model legacy-o"},
		{"POST /admin/delete_model_links", `{"app_name":"legacy-a","model_names":["legacy-m"]}`, 200, "Success!"},
		{"POST /legacy-a/predict", `{"input":[7.0,0.0]}`, 200, noModel},
		{"POST /admin/delete_versioned_model", `{"model_name":"legacy-n","model_version":"1"}`, 200, "Successfully deleted model with name 'legacy-n' and version '1'"},
		{"POST /admin/get_model", `{"model_name":"legacy-n","model_version":"2"}`, 200, `{"model_name":"legacy-n","model_version":"2","input_type":"integers","labels":["x","y"],"container_name":"c","model_data_path":"p","is_current_version":true}`},
		{"POST /admin/delete_versioned_model", `{"model_name":"legacy-n","model_version":"1"}`, 400, "model with name 'legacy-n' and version '1' does not exist"},
		{"POST /admin/delete_versioned_model", `{"model_name":"legacy-none","model_version":"1"}`, 400, "model with name 'legacy-none' and version '1' does not exist"},
		{"POST /admin/delete_versioned_model", `{"model_name":"legacy.unlinked","model_version":"0"}`, 400, "model with name 'legacy.unlinked' and version '0' does not exist"},
		{"POST /admin/delete_app", `{"name":"legacy-a"}`, 200, "Successfully deleted application with name 'legacy-a'"},
		{"POST /admin/delete_app", `{"name":"legacy-a"}`, 400, "Application 'legacy-a' does not exist"},
		{"POST /legacy-a/predict", `{"input":[7.0,0.0]}`, 404, "There is nothing at /legacy-a/predict"},
	} {
		method, path, _ := strings.Cut(step.path, " ")
		url := s.legacyQueryURL
		if strings.HasPrefix(path, "/admin") {
			url = s.legacyAdminURL
		}
		code, got := s.legacy(t, method, url+path, step.body)
		require.Equal(t, step.code, code, "%s %s: %s", step.path, step.body, got)
		if start, cut := strings.CutSuffix(step.want, "..."); cut {
			require.Equal(t, start, got[:min(len(start), len(got))], "%s %s", step.path, step.body)
			continue
		}
		require.Equal(t, step.want, got, "%s %s", step.path, step.body)
	}

	// An application that was not made here, of several models.
	s.deploy(t, "legacy-e", environment{"BIAS": "0"})
	s.create(t, application("legacy-many", "majority", "legacy-m", "legacy-e"))
	for path, want := range map[string]string{
		"/admin/get_all_applications": `{"input_type":"doubles","default_output":"-1","latency_slo_micros":20000000,"name":"legacy-many","linked_models":["legacy-m","legacy-e"]}`,
		"/admin/get_all_models":       `{"model_name":"legacy-e","model_version":"1","input_type":"doubles",`,
		"/admin/get_all_containers":   `{"model_id":"legacy-e:1","model_name":"legacy-e","model_version":"1","model_replica_id":0,"input_type":"doubles"}`,
	} {
		code, got := s.legacy(t, http.MethodPost, s.legacyAdminURL+path, `{"verbose":true}`)
		require.Equal(t, http.StatusOK, code)
		require.Contains(t, got, want)
		_, names := s.legacy(t, http.MethodPost, s.legacyAdminURL+path, `{"verbose":false}`)
		require.Regexp(t, `^\[.*"legacy-(many|e:1|e:1:0)".*\]$`, names)
	}
	require.EventuallyWithT(t, func(c *assertCollect) {
		_, got := s.legacy(c, http.MethodPost, s.legacyQueryURL+"/legacy-many/predict", `{"input":[9.0,0.0]}`)
		require.Equal(c, `{"query_id":N,"output":9,"default":false}`, got)
	}, patience, poll)
	_, got := s.legacy(t, http.MethodPost, s.legacyQueryURL+"/legacy-many/predict", `{"input":[9.0,0.0],"version":"1"}`)
	require.Contains(t, got, `"cause":"Too many models linked to application legacy-many"}`)

	code, got := s.legacy(t, http.MethodGet, s.legacyQueryURL+"/metrics", "")
	require.Equal(t, http.StatusOK, code)
	for _, series := range []string{
		`{"internal:aggregate_num_predictions":{"count":"`, `{"app:legacy-many:num_predictions":{"count":"`,
		`{"model:legacy-m:1:cache_hit_ratio":{"ratio":"0.`, `{"model:legacy-m:1:batch_size":{"unit":"queries","size":"`,
		`{"internal:rpc_request_queueing_delay":{"unit":"microseconds","size":"`,
	} {
		require.Contains(t, got, series)
	}
}
