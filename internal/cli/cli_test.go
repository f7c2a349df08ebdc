// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/cli"
	"github.com/clipper-serving/clipper/internal/telemetry"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var build = telemetry.Build{Version: "v1.2.3", Revision: "4f2a91c07b3dffff", Go: "go1.26"}

// run runs a command line against the server at address.
func run(t *testing.T, address, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv("COLUMNS", "80")
	t.Setenv("CLIPPER_ADDRESS", address)
	t.Setenv("CLIPPER_ADMIN_ADDRESS", address)
	var out, errs bytes.Buffer
	code = cli.Run(t.Context(), cli.Terminal{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs}, build, args)
	return code, out.String(), errs.String()
}

const applicationFile = `
name: filed
models: [{model: svm, weight: 2}, {model: forest, shadow: true}]
default_output: none
latency_objective: 0.2s
output: {kind: OUTPUT_KIND_LABEL, dataType: DATA_TYPE_STRING}
`

// TestGolden runs sessions: command lines one after the other, against one server. What they write
// is in testdata; -update writes it anew.
func TestGolden(t *testing.T) {
	sessions := []struct {
		name  string
		steps []string // A command line, split at spaces; "<<" separates standard input.
	}{
		{"instances", []string{
			"model deploy spread --version 1 --no-wait -- /bin/serve",
			"model show spread",
		}},
		{"logs", []string{
			"model deploy digits --version 1 --replicas 2 --no-wait -- /bin/serve",
			"logs digits",
			"logs digits:1 --replica 0 --timestamps --tail 5",
			"logs digits --follow",
			"logs digits --json",
			"logs digits --since 2026-03-01T12:00:01Z",
			"logs digits --since 2027-03-01T12:00:01Z",
			"logs digits --since yesterday",
			"logs nope",
			"model deploy small --version 1 --memory 512MiB --cpus 0.5 --gpus 2 --no-wait -- /bin/serve",
			"model show small",
			"top --interval 1ms",
		}},
		{"model", []string{
			"model list",
			"model deploy digits --version 1 --framework sklearn --path /m/digits.joblib --no-cache",
			"model deploy digits --version 1 --image ref",
			"model deploy digits --version 2 --replicas 2 --batching fixed --max-batch 32 --keep-current --env A=b=c,d --start-timeout 30s --json -- /bin/serve --depth 4",
			"model deploy ext --version 1 --address 10.0.0.7:9000 --no-wait",
			"model list",
			"model show digits",
			"model show digits --json",
			"model set-batching digits --batching quantile --max-delay 2ms --auto-delay",
			"model set-batching digits",
			"model explain digits",
			"model explain digits:1 --json",
			"model explain nope",
			"model set-version digits 2",
			"model scale digits 3",
			"model scale digits 0",
			"model scale digits --min-replicas 1 --max-replicas 8 --no-wait",
			"model scale digits",
			"model scale nope 1",
			"model delete digits --version 1",
			"model delete digits",
			"model delete digits",
			"model delete ext --json",
			"model list --json",
		}},
		{"repository", []string{
			"model repository",
			"model deploy stored --version 1 --framework sklearn --path /m/x.joblib --keep-versions 2",
			"model repository",
			"model repository --json",
			"model list",
			"model show stored",
			"model show typo",
			"model show nope",
		}},
		{"deploy-failed", []string{
			"model deploy bad --version 1 --framework sklearn --path /m/bad.joblib",
			"model deploy slow --version 1 --framework sklearn --path /m/slow.joblib --timeout 150ms",
			"model deploy slow --version 2 --framework sklearn --path /m/slow.joblib --timeout 150ms --json",
		}},
		{"deploy-usage", []string{
			"model deploy",
			"model deploy digits --version 1",
			"model deploy digits --version 1 --path m.joblib",
			"model deploy digits --version 1 --image a --address b",
			"model deploy digits --version 1 --image a --directory b",
			"model deploy digits --version 1 --image a --batching best",
			"model deploy digits --version 1 --image a --replica 3",
		}},
		{"app", []string{
			"app list",
			"app create digits --models svm,forest:2 --policy exp4 --param eta=0.3 --param gamma=0.1 --default 0 --slo 50ms --output label --input float64[64] --confidence 0.5 --weight svm=2 --shadow forest",
			"app create digits --models svm --default 0",
			"app create price --models small --output number --range=-5:1000 --default=-1.5 --input rows=float32[?,3] --input text=string --input x=any[...] --feedback-lifetime 2h --description Prices --json",
			"app create shapes --models small --output scores --classes a,b --default [0.5,0.5]",
			"app create --file - << " + applicationFile,
			"app create other --file - << " + applicationFile,
			"app create --file - << {\"colour\": 1}",
			"app create nodefault --models a",
			"app list",
			"app show digits",
			"app show digits --json",
			"app update digits --slo 80ms",
			"app update digits --models forest,knn",
			"app update digits --param eta=0.5",
			"app update digits --policy exp3",
			"app update digits --policy ucb1 --reset",
			"app update shapes --loss log",
			"app update shapes --loss logarithm",
			"app update --file - << {\"name\": \"digits\", \"confidence_threshold\": 0, \"description\": \"x\"}",
			"app update digits",
			"app update nope --slo 1s",
			"app state digits",
			"app state digits --context ann --json",
			"app delete digits",
			"app delete digits",
			"app list --json",
		}},
		{"app-early", []string{
			"app create digits --models svm,forest --default 0 --answer-early",
			"app show digits",
			"app update digits --no-answer-early --json",
		}},
		{"canary", []string{
			"app create digits --models svm,forest:2 --default 0 --policy static --canary forest:2=0.1 --canary-baseline svm --canary-step 3 --canary-loss-margin 0.05",
			"app show digits",
			"app canary digits",
			"app canary digits --watch --json",
			"app update digits --no-canary --json",
			"app canary nope",
			"app update digits --canary forest:2=much",
			"app update digits --canary a --no-canary",
		}},
		{"decisions", []string{
			"app correlations digits",
			"app create digits --models svm,forest:2 --default 0 --decision-log 0.25 --decision-log-format parquet",
			"app update digits --decision-log 1 --group svm=linear,forest=linear",
			"app explain digits",
			"app explain digits --context ann --decisions 3 --json",
			"app explain digits --context nobody",
			"app correlations digits",
			"app correlations digits --json",
			"app evaluate digits --log testdata/decisions.jsonl",
			"app create sized --models svm,forest:2 --default 0 --output label",
			"app evaluate sized --policy static --weight svm=1,forest=3 --log testdata/decisions.jsonl",
			"app evaluate sized --policy exp3 --param eta=0.1 --log testdata/decisions.jsonl --json",
			"app evaluate sized --policy exp3 --frozen --log testdata/decisions.jsonl",
			"app evaluate sized --policy exp3 --frozen --state testdata/decisions.jsonl --log testdata/decisions.jsonl",
			"app evaluate sized --policy exp3 --state x --log testdata/decisions.jsonl",
			"app evaluate sized --policy majority --log testdata/decisions.jsonl",
			"app evaluate sized --policy best --log testdata/decisions.jsonl",
			"app evaluate sized --policy exp3 --log testdata/nowhere",
			"app evaluate sized --policy exp3",
			"app evaluate sized --app - --policy single --log testdata/decisions.jsonl << {\"name\": \"sized\", \"models\": [{\"model\": \"forest\", \"version\": \"2\"}], \"output\": {\"kind\": \"OUTPUT_KIND_LABEL\"}, \"default_output\": 0}",
			"app evaluate nope --policy exp3 --log testdata/decisions.jsonl",
			"app create x --models a --decision-log-format csv",
			"app create x --models a --group b=g",
		}},
		{"app-custom", []string{
			"app create mine --models svm,knn --policy custom --policy-address localhost:7100 --param epsilon=0.1 --default 0",
			"app update mine --policy-address unix:///run/policy.sock --json",
			"app update mine --policy exp4 --json",
			"app show mine",
		}},
		{"app-usage", []string{
			"app create --models a --default 0",
			"app create x --models a: --default 0",
			"app create x --models a --weight b=1",
			"app create x --models a --shadow b",
			"app create x --models a --input float6[3]",
			"app create x --models a --input float64[3",
			"app create x --models a --input float64[x]",
			"app create x --models a --range 3",
			"app create x --models a --range 3:3",
			"app create x --models a --output word",
			"app create x --models a --slo fast",
		}},
		{"contexts", []string{
			"app create digits --models svm,forest --default 0 --context-lifetime 720h --prior-weight=-1",
			"app show digits",
			"app update digits --context-lifetime 0 --prior-weight 20",
			"app contexts digits",
			"app contexts digits --prefix user- --limit 2",
			"app contexts digits --prefix user-0 --json",
			"app contexts digits --prefix x",
			"app contexts digits --limit 0",
			"app contexts nope",
			"app export digits",
			"app export digits --context ann --json",
			"app export digits --context nobody",
			"app export digits --context broken",
			"app export digits --context broken --json",
			"app export digits -o /does/not/exist",
			"app reset digits --context ann",
			"app reset digits --context nobody",
			"app reset digits --all --json",
			"app reset digits --all --context ann",
			"app reset digits",
			"app reset nope --all",
		}},
		{"query", []string{
			"query digits [0.1,0.2]",
			"query digits [0.1,0.2] --id q-1 --context ann --timeout 20ms --json",
			"query digits - << [1]",
			"query late 1",
			"query late 1 --json",
			"query nope 1",
			"query nope 1 --json",
			"query overloaded 1",
			"query digits [0.1,",
			"query digits",
			"query digits 1 --batch x",
			"query digits @/does/not/exist",
			"query shift -- -5",
			"query digits --batch - << 1\n2\n\n3",
			"query digits --batch - << 1\n\"a\"",
			"query digits --batch - --json << 1\n\"a\"",
			"query digits --batch - << 1\nx",
		}},
		{"feedback", []string{
			"feedback digits --id AWx --truth 7",
			"feedback digits --id AWx --truth cat --json",
			"feedback digits --id again --reward 0.5",
			"feedback digits --id outage --truth 7",
			"feedback digits --id outage --truth 7 --json",
			"feedback digits --input [1] --truth=-5 --context ann --once k",
			"feedback digits --truth 7",
			"feedback digits --id AWx",
			"feedback digits --id AWx --truth 1 --reward 1",
			"feedback digits --input [1] --reward 1",
			"feedback digits --id AWx --truth 1 --context ann",
		}},
		{"other", []string{
			"version",
			"version --json",
			"frobnicate",
			"app",
		}},
		{"profile-usage", []string{
			"profile",
			"profile digits --address unix:/a",
			"profile --address unix:/a --replica 0",
			"profile --address unix:/a --rate 5",
			"profile --address unix:/a --slo 1s --rate NaN",
			"profile --address unix:/a --slo 1s --rate 1e13",
			"profile --address unix:/a --slo 1s --rate 5 --burstiness 0.5",
			"profile --address unix:/a --max-batch 70000",
			"profile --address unix:/a --slo=-1s",
			"profile --address unix:/a --rounds 0",
			"profile --address unix:/a --sample [",
			"profile nope",
		}},
		{"help", []string{"", "model deploy --help", "app create --help", "query --help", "profile --help", "status --help"}},
		{"completion", []string{
			"completion bash", "completion zsh", "completion fish", "completion tcsh",
		}},
	}
	directory, err := os.Getwd()
	require.NoError(t, err)
	for _, session := range sessions {
		t.Run(session.name, func(t *testing.T) {
			s := start(t)
			var got strings.Builder
			for _, step := range session.steps {
				line, stdin, _ := strings.Cut(step, " << ")
				code, stdout, stderr := run(t, s.address, stdin, strings.Fields(line)...)
				fmt.Fprintf(&got, "$ clipper %s\n%s", strings.TrimSpace(step), strings.ReplaceAll(stdout, directory, "CWD"))
				if stderr != "" {
					fmt.Fprintf(&got, "--- stderr\n%s", stderr)
				}
				fmt.Fprintf(&got, "--- exit %d\n\n", code)
			}
			golden := filepath.Join("testdata", session.name+".golden")
			if *update {
				require.NoError(t, os.MkdirAll("testdata", 0o755))
				require.NoError(t, os.WriteFile(golden, []byte(got.String()), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Fatalf("%s (-want +got):\n%s", golden, diff)
			}
		})
	}
}

// TestRequests checks what reaches the server.
func TestRequests(t *testing.T) {
	s := start(t)
	code, _, stderr := run(t, s.address, "", "app", "create", "digits", "--models", "svm,knn", "--default", "0", "--policy", "exp4", "--param", "eta=0.3")
	require.Zero(t, code, stderr)
	tests := []struct {
		name string
		args []string
		want proto.Message // JSON is easier to read.
		json string
	}{
		{
			"deploy a saved model",
			[]string{"model", "deploy", "m", "--version", "1", "--framework", "sklearn", "--path", "m.joblib", "--no-wait"},
			&clipperv1.DeployModelRequest{},
			`{"version": {"model": "m", "version": "1", "cache": {}, "container": {"adapter": {"framework": "sklearn", "modelPath": "CWD/m.joblib"}}}}`,
		},
		{
			"deploy an adapter without a saved model",
			[]string{"model", "deploy", "m", "--version", "6", "--framework", "oip", "--env", "OIP_ADDRESS=h:1", "--no-wait"},
			&clipperv1.DeployModelRequest{},
			`{"version": {"model": "m", "version": "6", "cache": {}, "container": {"adapter": {"framework": "oip"}, "environment": {"OIP_ADDRESS": "h:1"}}}}`,
		},
		{
			"deploy a command",
			[]string{"model", "deploy", "m", "--version", "2", "--no-wait", "--no-cache", "--no-warm-up", "--replicas", "0", "--batching", "none", "--keep-current", "--env", "A=b=c,d", "--env", "B=", "--", "./serve", "--depth", "x/y"},
			&clipperv1.DeployModelRequest{},
			`{"keepCurrent": true, "version": {"model": "m", "version": "2", "replicas": 0, "cache": {"disabled": true}, "warmUp": {"disabled": true}, "batching": {"policy": "none"},
			  "container": {"command": {"arguments": ["CWD/serve", "--depth", "x/y"], "directory": "CWD"}, "environment": {"A": "b=c,d", "B": ""}}}}`,
		},
		{
			"deploy a program in PATH",
			[]string{"model", "deploy", "m", "--version", "3", "--no-wait", "--directory", "sub", "--", "python3", "serve.py"},
			&clipperv1.DeployModelRequest{},
			`{"version": {"model": "m", "version": "3", "cache": {}, "container": {"command": {"arguments": ["python3", "serve.py"], "directory": "CWD/sub"}}}}`,
		},
		{
			"deploy what registers itself",
			[]string{"model", "deploy", "m", "--version", "4", "--no-wait", "--registered", "--replicas", "3", "--homes", "2"},
			&clipperv1.DeployModelRequest{},
			`{"version": {"model": "m", "version": "4", "replicas": 3, "homes": 2, "cache": {}, "container": {"registered": {}}}}`,
		},
		{
			"scale over instances",
			[]string{"model", "scale", "m", "4", "--version", "1", "--homes", "2", "--no-wait"},
			&clipperv1.UpdateModelVersionRequest{},
			`{"model": "m", "version": "1", "replicas": 4, "homes": 2}`,
		},
		{
			"scale by load",
			[]string{"model", "scale", "m", "--version", "1", "--max-replicas", "8", "--target-load", "0.7", "--scale-down-delay", "30s", "--idle-timeout", "1m", "--no-wait"},
			&clipperv1.UpdateModelVersionRequest{},
			`{"model": "m", "version": "1", "autoscaling": {"maxReplicas": 8, "targetLoad": 0.7, "scaleDownDelay": "30s", "idleTimeout": "60s"}}`,
		},
		{
			"scale by hand again",
			[]string{"model", "scale", "m", "2", "--version", "1", "--max-replicas", "0", "--no-wait"},
			&clipperv1.UpdateModelVersionRequest{},
			`{"model": "m", "version": "1", "replicas": 2, "autoscaling": {}}`,
		},
		{
			"query",
			[]string{"query", "digits", " [1, 2] ", "--context", "ann", "--id", "q", "--timeout", "20ms"},
			&clipperv1.QueryRequest{},
			`{"application": "digits", "inputJson": "WzEsIDJd", "context": "ann", "id": "q", "timeout": "0.020s"}`,
		},
		{
			"truth as text",
			[]string{"feedback", "digits", "--id", "AWx", "--truth", "a cat"},
			&clipperv1.FeedbackRequest{}, `{"application": "digits", "feedbackId": "AWx", "truth": "a cat"}`,
		},
		{
			"truth as a number",
			[]string{"feedback", "digits", "--input", "[1]", "--truth", "7", "--once", "k", "--context", "c"},
			&clipperv1.FeedbackRequest{}, `{"application": "digits", "inputJson": "WzFd", "truth": 7, "id": "k", "context": "c"}`,
		},
		{
			"reward of nothing",
			[]string{"feedback", "digits", "--id", "AWx", "--reward", "0"},
			&clipperv1.FeedbackRequest{}, `{"application": "digits", "feedbackId": "AWx", "reward": 0}`,
		},
		{
			"update names its fields and what was seen",
			[]string{"app", "update", "digits", "--param", "gamma=0.1", "--confidence", "0"},
			&clipperv1.UpdateApplicationRequest{},
			`{"updateMask": "confidenceThreshold,policy", "application": {"name": "digits", "etag": "1", "defaultOutput": 0, "latencyObjective": "0.1s",
			  "models": [{"model": "svm"}, {"model": "knn"}], "policy": {"name": "exp4", "parameters": {"eta": 0.3, "gamma": 0.1}}}}`,
		},
		{
			"another policy starts without parameters",
			[]string{"app", "update", "digits", "--policy", "exp3"},
			&clipperv1.UpdateApplicationRequest{},
			`{"updateMask": "policy", "application": {"name": "digits", "etag": "1", "defaultOutput": 0, "latencyObjective": "0.1s",
			  "models": [{"model": "svm"}, {"model": "knn"}], "policy": {"name": "exp3"}}}`,
		},
		{
			"a reset needs no change",
			[]string{"app", "update", "digits", "--reset"},
			&clipperv1.UpdateApplicationRequest{},
			`{"updateMask": "", "resetState": true, "application": {"name": "digits", "etag": "1", "defaultOutput": 0, "latencyObjective": "0.1s",
			  "models": [{"model": "svm"}, {"model": "knn"}], "policy": {"name": "exp4", "parameters": {"eta": 0.3}}}}`,
		},
	}
	directory, err := os.Getwd()
	require.NoError(t, err)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			code, _, stderr := run(t, s.address, "", test.args...)
			require.Zero(t, code, stderr)
			require.NoError(t, protojson.Unmarshal([]byte(strings.ReplaceAll(test.json, "CWD", directory)), test.want))
			require.Empty(t, cmp.Diff(test.want, s.asked(), protocmp.Transform()))
		})
	}
}

func TestStatus(t *testing.T) {
	s := start(t)
	for _, args := range [][]string{
		{"model", "deploy", "svm", "--version", "1", "--image", "ref", "--no-wait"},
		{"app", "create", "digits", "--models", "svm", "--default", "0"},
	} {
		code, _, stderr := run(t, s.address, "", args...)
		require.Zero(t, code, stderr)
	}
	code, stdout, stderr := run(t, s.address, "", "status")
	require.Zero(t, code, stderr)
	for _, want := range []string{"frontend", "selector", "abstraction", "serving", "svm", "image ref", "digits", "100ms"} {
		require.Contains(t, stdout, want)
	}
	var document struct {
		Services             []struct{ Service, State, Message string }
		Models, Applications []struct{ Name string }
	}
	code, stdout, _ = run(t, s.address, "", "status", "--json")
	require.Zero(t, code)
	require.NoError(t, json.Unmarshal([]byte(stdout), &document))
	require.Len(t, document.Services, 4)
	require.Equal(t, "svm", document.Models[0].Name)
	require.Equal(t, "digits", document.Applications[0].Name)

	s.mu.Lock()
	s.appsDown = true
	s.mu.Unlock()
	code, stdout, stderr = run(t, s.address, "", "status")
	require.Equal(t, cli.ExitUnreachable, code)
	require.Contains(t, stdout, "unreachable")
	require.Contains(t, stdout, "svm", "what is known is shown")
	require.Equal(t, "clipper: the selector cannot be reached\n", stderr)

	s.mu.Lock()
	s.appsDown = false
	s.mu.Unlock()
	s.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	code, stdout, _ = run(t, s.address, "", "status")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, stdout, "not serving")
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	silent := l // It accepts and says nothing.

	code, _, stderr := run(t, address, "", "model", "list", "--timeout", "50ms")
	require.Equal(t, cli.ExitUnreachable, code)
	require.Contains(t, stderr, "no answer from "+address+" within 50ms")

	require.NoError(t, silent.Close())
	code, stdout, stderr := run(t, address, "", "query", "digits", "1")
	require.Equal(t, cli.ExitUnreachable, code)
	require.Empty(t, stdout)
	require.Equal(t, "clipper: cannot reach "+address+" (connection refused): start it with `clipper up`, or name another address with --address\n", stderr)

	code, stdout, stderr = run(t, address, "", "app", "list", "--json")
	require.Equal(t, cli.ExitUnreachable, code)
	require.Empty(t, stdout)
	var document struct {
		Error struct {
			ExitCode int `json:"exit_code"`
			Code     string
		}
	}
	require.NoError(t, json.Unmarshal([]byte(stderr), &document))
	require.Equal(t, cli.ExitUnreachable, document.Error.ExitCode)
	require.Equal(t, "UNAVAILABLE", document.Error.Code)

	code, stdout, _ = run(t, address, "", "status")
	require.Equal(t, cli.ExitUnreachable, code)
	require.Contains(t, stdout, "unreachable")
}

// TestAddressFlags checks that flags win over the environment, and where they may stand.
func TestAddressFlags(t *testing.T) {
	s := start(t)
	for _, args := range [][]string{
		{"model", "list", "--admin-address", s.address},
		{"model", "--admin-address", s.address, "list"},
		{"app", "list", "--admin-address=" + s.address},
		{"query", "digits", "1", "--address", s.address},
		{"status", "--address", s.address, "--admin-address", s.address},
	} {
		code, _, stderr := run(t, "127.0.0.1:1", "", args...)
		require.Zero(t, code, "%s: %s", args, stderr)
	}
}

func TestBatch_inParts(t *testing.T) {
	s := start(t)
	file := filepath.Join(t.TempDir(), "queries.jsonl")
	require.NoError(t, os.WriteFile(file, []byte(strings.Repeat("[1]\n", 150)), 0o600))
	code, stdout, stderr := run(t, s.address, "", "query", "digits", "--batch", file)
	require.Zero(t, code, stderr)
	require.Equal(t, strings.Repeat("7\t1.000\n", 150), stdout)
	require.Equal(t, []int{64, 64, 22}, s.batches)
}

func TestTerminal(t *testing.T) {
	s := start(t)
	t.Setenv("CLIPPER_ADMIN_ADDRESS", s.address)
	var stdout, stderr bytes.Buffer
	terminal := cli.Terminal{Stdout: &stdout, Stderr: &stderr, Pretty: true, Animated: true}
	require.Zero(t, cli.Run(t.Context(), terminal, build, []string{"model", "deploy", "svm", "--version", "1", "--image", "ref"}))
	require.Contains(t, stderr.String(), "\r\x1b[K⠙ svm:1 starting, 0/1 replicas ready")
	require.True(t, strings.HasSuffix(stderr.String(), "\r\x1b[K"), "the line that moved is removed")

	stdout.Reset()
	require.Zero(t, cli.Run(t.Context(), terminal, build, []string{"model", "list"}))
	require.Contains(t, stdout.String(), "\x1b[33mstarting\x1b[0m")

	stdout.Reset()
	require.Zero(t, cli.Run(t.Context(), terminal, build, []string{"version", "--json"}))
	require.Contains(t, stdout.String(), "{\n  \"version\": \"v1.2.3\"")
}

func TestInterrupted(t *testing.T) {
	s := start(t)
	t.Setenv("CLIPPER_ADDRESS", s.address)
	t.Setenv("CLIPPER_ADMIN_ADDRESS", s.address)
	for _, args := range [][]string{
		{"query", "wait", "1"},
		{"model", "deploy", "slow", "--version", "1", "--image", "ref"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		stderr := &notify{written: make(chan struct{}, 100)}
		go func() {
			defer cancel()
			if args[0] == "model" { // It waits once it says so.
				<-stderr.written
				return
			}
			<-s.waiting
		}()
		require.Equal(t, cli.ExitInterrupted, cli.Run(ctx, cli.Terminal{Stdout: io.Discard, Stderr: stderr}, build, args))
	}
}

// notify tells when something is written to it.
type notify struct{ written chan struct{} }

func (n *notify) Write(p []byte) (int, error) {
	n.written <- struct{}{}
	return len(p), nil
}

func TestComplete(t *testing.T) {
	s := start(t)
	for _, args := range [][]string{
		{"model", "deploy", "svm", "--version", "1", "--image", "ref", "--no-wait"},
		{"model", "deploy", "knn", "--version", "1", "--image", "ref", "--no-wait"},
		{"app", "create", "digits", "--models", "svm", "--default", "0"},
	} {
		code, _, stderr := run(t, s.address, "", args...)
		require.Zero(t, code, stderr)
	}
	tests := []struct {
		words []string
		want  []string
	}{
		{nil, []string{"model", "app", "key", "query", "feedback", "status", "logs", "top", "profile", "container", "image", "health", "version", "completion"}},
		{[]string{"q"}, []string{"query"}},
		{[]string{"model", "s"}, []string{"show", "set-version", "set-batching", "scale"}},
		{[]string{"model", "show", ""}, []string{"knn", "svm"}},
		{[]string{"model", "show", "k"}, []string{"knn"}},
		{[]string{"model", "--json", "show", "k"}, []string{"knn"}},
		{[]string{"model", "show", "knn", ""}, nil},
		{[]string{"query", ""}, []string{"digits"}},
		{[]string{"app", "create", "x", "--policy", "exp"}, []string{"exp3", "exp4"}},
		{[]string{"app", "create", "x", "--policy=exp"}, []string{"--policy=exp3", "--policy=exp4"}},
		{[]string{"app", "create", "x", "--policy", "=", "exp"}, []string{"exp3", "exp4"}},
		{[]string{"model", "deploy", "x", "--batching", ""}, []string{"slo", "aimd", "quantile", "fixed", "none"}},
		{[]string{"model", "deploy", "x", "--no-"}, []string{"--no-cache", "--no-warm-up", "--no-auto-delay", "--no-wait"}},
		{[]string{"model", "deploy", "x", "--path", ""}, nil},
		{[]string{"model", "deploy", "x", "--", "--"}, nil},
		{[]string{"query", "digits", "--co"}, []string{"--context"}},
		{[]string{"query", "digits", "--nope=x"}, nil},
		{[]string{"completion", ""}, []string{"bash", "zsh", "fish"}},
	}
	for _, test := range tests {
		t.Run(strings.Join(test.words, " "), func(t *testing.T) {
			code, stdout, stderr := run(t, s.address, "", append([]string{"__complete"}, test.words...)...)
			require.Zero(t, code, stderr)
			var got []string
			for line := range strings.Lines(stdout) {
				name, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
				got = append(got, name)
			}
			require.Equal(t, test.want, got)
		})
	}
	code, stdout, stderr := run(t, "127.0.0.1:1", "", "__complete", "model", "show", "")
	require.Zero(t, code)
	require.Empty(t, stdout+stderr, "a server that is away is no error")
}

// TestDocumented checks that the page on the command line shows every command and exit code, and
// that help has an example of every command.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/cli.md")
	require.NoError(t, err)
	page := string(text)
	for _, code := range []int{cli.ExitOK, cli.ExitFailed, cli.ExitUsage, cli.ExitNotFound, cli.ExitUnreachable, cli.ExitDeploy, cli.ExitInterrupted} {
		require.Contains(t, page, fmt.Sprintf("\n| %d |", code))
	}
	var visit func(words ...string)
	visit = func(words ...string) {
		_, names, _ := run(t, "127.0.0.1:1", "", append(append([]string{"__complete"}, words...), "")...)
		_, help, _ := run(t, "127.0.0.1:1", "", append(words, "--help")...)
		command := "clipper " + strings.Join(words, " ")
		if len(words) > 0 && !strings.HasPrefix(help, "Usage: "+command+" <command>") {
			require.Contains(t, page, "    "+command)
			require.Contains(t, help, "    "+command)
			return
		}
		require.NotEmpty(t, names)
		for line := range strings.Lines(names) {
			name, _, _ := strings.Cut(line, "\t")
			visit(append(slices.Clone(words), strings.TrimSpace(name))...)
		}
	}
	visit()
}

type extra struct {
	Serve struct {
		Port int `help:"The port."`
	} `cmd:"" help:"Serve."`
}

// TestRun_moreCommands checks that main can add commands, and that only those are configured.
func TestRun_moreCommands(t *testing.T) {
	var stdout bytes.Buffer
	terminal := cli.Terminal{Stdout: &stdout, Stderr: &stdout}
	require.Zero(t, cli.Run(t.Context(), terminal, build, []string{"serve", "--help"}, kong.Embed(&extra{})))
	require.Contains(t, stdout.String(), "CLIPPER_SERVE_PORT")
	require.NotContains(t, stdout.String(), "--admin-address")
	stdout.Reset()
	require.Zero(t, cli.Run(t.Context(), terminal, build, []string{"model", "deploy", "--help"}, kong.Embed(&extra{})))
	require.NotContains(t, stdout.String(), "CLIPPER_MODEL")
}
