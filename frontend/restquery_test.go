// SPDX-License-Identifier: Apache-2.0

package frontend_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"
	"pgregory.net/rapid"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// answers is a connection's side of an answer, with what a real one has and a recorder has not.
type answers struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answers) Header() http.Header             { return a.header }
func (a *answers) WriteHeader(status int)          { a.status = status }
func (a *answers) Write(b []byte) (int, error)     { return a.body.Write(b) }
func (a *answers) SetReadDeadline(time.Time) error { return nil }
func (a *answers) reset()                          { clear(a.header); a.status = http.StatusOK; a.body.Reset() }

// reusedBody is a request's body that can be sent again.
type reusedBody struct{ bytes.Reader }

func (*reusedBody) Close() error { return nil }

// edgeQuery returns a function that sends one query of n floats from the header's end to the answer's.
func edgeQuery(t testing.TB, n int) func() {
	f := start(t, constant(wide(int64(n))), unlimited)
	text := []byte(`{"input":` + numbersJSON(n) + `}`)
	r := httptest.NewRequest(http.MethodPost, "/v1/applications/digits/query", bytes.NewReader(text))
	body := &reusedBody{}
	r.Body = body
	w := &answers{header: http.Header{}}
	return func() {
		w.reset()
		body.Reset(text)
		f.query.ServeHTTP(w, r)
		if w.status != http.StatusOK {
			t.Fatal(w.body.String())
		}
	}
}

// maxEdgeAllocations is how often a query may allocate between the header of its request and the
// selector, and back: with telemetry, without net/http.
const maxEdgeAllocations = 25

func TestQuery_allocations(t *testing.T) {
	n := testing.AllocsPerRun(500, edgeQuery(t, 784))
	t.Logf("%v allocations", n)
	require.LessOrEqual(t, n, float64(maxEdgeAllocations))
}

// generalPath is the path of a query that is served by the gateway, since it is written unusually.
func generalPath(application string) string {
	var b strings.Builder
	for _, c := range []byte(application) {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return "/v1/applications/" + b.String() + "/query"
}

// sameAnswer requires that the short way of a query answers as the gateway does, to the byte.
func sameAnswer(t rapid.TB, h http.Handler, application string, body []byte) {
	send := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body)))
		return w
	}
	short, general := send("/v1/applications/"+url.PathEscape(application)+"/query"), send(generalPath(application))
	require.Equal(t, general.Code, short.Code)
	require.Equal(t, general.Body.String(), short.Body.String())
	for _, name := range []string{"Content-Type", "Retry-After", "X-Content-Type-Options"} {
		require.Equal(t, general.Header()[name], short.Header()[name], name)
	}
}

// many is applications of every kind of input.
func many(t testing.TB) *fixture {
	spec := func(name string, kind clipperv1.DataType, shape ...int64) *clipperv1.TensorSpec {
		return &clipperv1.TensorSpec{Name: name, DataType: kind, Shape: shape}
	}
	apps := []*clipperv1.Application{
		digits(),
		application("any", clipperv1.OutputKind_OUTPUT_KIND_NUMBER, 0),
		application("matrix", clipperv1.OutputKind_OUTPUT_KIND_NUMBER, 0, spec("", float64s, 2, -1)),
		application("named", clipperv1.OutputKind_OUTPUT_KIND_NUMBER, 0, spec("image", float32s, 2), spec("caption", text)),
		application("whole", clipperv1.OutputKind_OUTPUT_KIND_NUMBER, 0, spec("", int64s, -1)),
		application("blob", clipperv1.OutputKind_OUTPUT_KIND_NUMBER, 0, spec("", blob)),
		application("Ü &%/名", clipperv1.OutputKind_OUTPUT_KIND_NUMBER, 0),
	}
	return start(t, newSelector(apps...))
}

var queryBodies = []string{
	`{"input":[1,2]}`, `{"input":[1,2],"id":"x","context":"é","timeout":"0.5s","priority":3}`, `{"input":[1,"a"]}`, `{"input":[1,2,3]}`,
	`{"input":[1e999,2]}`, `{"input":[[1],[2]]}`, `{"input":[[1,2],[3]]}`, `{"input":{"image":[0,1],"caption":"t"}}`, `{"input":{"image":[0,1]}}`,
	`{"input":{"b64":"AAEC"}}`, `{"input":[9223372036854775807]}`, `{"input":[1,2],"input":[1,2]}`, `{"inptu":[1]}`, `{}`, ``, `[`, `{"input":[1,2]`,
	`{"input":[01,2]}`, `{"input":[-0.0,1e-400]}`, `{"input":[16777217.0000001,0.1234567890123]}`, `{"input":[1,2]} x`, `{"input":"\ud800"}`, `{"input":[NaN,1]}`, `{"input":null}`,
	`{"input":[1,2],"timeout":"-1s"}`, `{"input":[1,2],"priority":9}`, "\ufeff{}", "{\"input\":[1\x00,2]}", `{"input":[1,2],"context":"` + strings.Repeat("c", 300) + `"}`,
}

func TestQuery_asGateway(t *testing.T) {
	f := many(t)
	names := []string{"digits", "any", "matrix", "named", "whole", "blob", "Ü &%/名", "nobody", "a:b", "..", ".", "%2e", "\"<script>\"", "\xff"}
	for _, name := range names[:6] {
		for _, body := range queryBodies {
			sameAnswer(t, f.query, name, []byte(body))
		}
	}
	value := rapid.Deferred(func() *rapid.Generator[string] {
		return rapid.OneOf(
			rapid.Map(rapid.Float64(), func(f float64) string { return fmt.Sprint(f) }),
			rapid.Map(rapid.Int(), func(i int) string { return fmt.Sprint(i) }),
			rapid.SampledFrom([]string{"0", "-1.5", "1e5", `"t"`, "true", "null", `{"b64":"AA=="}`, `{"image":[0,1],"caption":"t"}`, "[1,2]", "[[1,2],[3,4]]", "[", "]", `"`, "NaN"}),
		)
	})
	rapid.Check(t, func(t *rapid.T) {
		var body string
		if rapid.Bool().Draw(t, "any bytes") {
			body = rapid.OneOf(rapid.SampledFrom(queryBodies), rapid.String()).Draw(t, "body")
			at := rapid.IntRange(0, len(body)).Draw(t, "cut")
			body = body[:at] + rapid.StringMatching(`[\[\]{},:"0-9.eE-]{0,3}`).Draw(t, "instead") + body[min(len(body), at+rapid.IntRange(0, 3).Draw(t, "left out")):]
		} else {
			input := rapid.OneOf(value, rapid.Map(rapid.SliceOfN(value, 0, 4), func(v []string) string { return "[" + strings.Join(v, ",") + "]" })).Draw(t, "input")
			body = `{"input":` + input + rapid.SampledFrom([]string{"", `,"id":"1"`, `,"context":3`, `,"priority":2`, `,"timeout":"1s"`, `,"x":1`}).Draw(t, "more") + "}"
		}
		sameAnswer(t, f.query, rapid.SampledFrom(names).Draw(t, "application"), []byte(body))
	})
}

// FuzzQuery asks for the same of any bytes.
func FuzzQuery(f *testing.F) {
	fixture := many(f)
	for i, body := range queryBodies {
		f.Add([]string{"digits", "any", "matrix", "named", "whole", "blob"}[i%6], []byte(body))
	}
	f.Fuzz(func(t *testing.T, application string, body []byte) {
		if application == "" || strings.Contains(application, "/") {
			t.Skip("other routes")
		}
		sameAnswer(t, fixture.query, application, body)
	})
}

// A body that has been answered is used again, so nothing may still refer to it.
func TestQuery_reuse(t *testing.T) {
	selector := newSelector(application("any", clipperv1.OutputKind_OUTPUT_KIND_NUMBER, 0))
	var kept []*tensor.Input
	var contexts []string
	selector.query = func(ctx context.Context, application, userContext string, in *tensor.Input) (*clipperv1.QueryResponse, error) {
		kept, contexts = append(kept, in), append(contexts, userContext)
		return echo(ctx, application, userContext, in)
	}
	f := start(t, selector)
	for i := range 20 {
		w := call(f.query, "POST", "/v1/applications/any/query", fmt.Sprintf(`{"input":["text %02d"],"context":"user %02d"}`, i, i))
		require.Equal(t, http.StatusOK, w.Code, w.Body)
	}
	for i, in := range kept {
		tensors, err := in.Tensors()
		require.NoError(t, err)
		require.Equal(t, []string{fmt.Sprintf("text %02d", i)}, tensors[0].GetStrings())
		require.Equal(t, fmt.Sprintf("user %02d", i), contexts[i])
	}
}

// Both ways carry who calls, and no other header.
func TestQuery_credentials(t *testing.T) {
	selector := newSelector(digits())
	var got metadata.MD
	selector.query = func(ctx context.Context, application, userContext string, in *tensor.Input) (*clipperv1.QueryResponse, error) {
		got, _ = metadata.FromIncomingContext(ctx)
		return echo(ctx, application, userContext, in)
	}
	f := start(t, selector)
	for _, path := range []string{"/v1/applications/digits/query", generalPath("digits")} {
		w := call(f.query, "POST", path, `{"input":[1,2]}`, "Authorization", "Bearer a", "X-Api-Key", "b", "X-Other", "c")
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		require.Equal(t, []string{"Bearer a"}, got.Get("authorization"), path)
		require.Equal(t, []string{"b"}, got.Get("x-api-key"), path)
		require.Empty(t, got.Get("x-other"), path)
	}
}
