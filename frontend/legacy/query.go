// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// The explanations of a default output. The original had the first two.
const (
	explainNoModel    = "No connected models found for query"
	explainLate       = "Failed to retrieve a prediction response within the specified latency SLO"
	explainConfidence = "The confidence of the prediction is below the threshold of the application"
)

// maxBatch is how many queries our services take at once.
const maxBatch = 10_000

// Applications is what is known of the applications. Safe for concurrent use; what it returns is not
// modified.
type Applications interface {
	// Application returns an application. NOT_FOUND: there is none of this name.
	Application(name string) (*clipperv1.Application, error)
}

// QueryDeps is what the query frontend works with. All are required.
type QueryDeps struct {
	Limits       Limits
	Applications Applications
	// Queries answers; its connection checks the caller's credentials.
	Queries clipperv1.QueryServiceClient
	// Models tells how queries are batched; its connection checks the caller's credentials.
	Models clipperv1.ModelServiceClient
}

// QueryFrontend serves the original's REST API of queries. Safe for concurrent use.
type QueryFrontend struct {
	deps    QueryDeps
	next    atomic.Int64 // The id of the next query.
	metrics *metrics
}

// NewQueryFrontend returns the handler of queries. Its Run must run for the rates that it tells.
func NewQueryFrontend(deps QueryDeps) *QueryFrontend {
	return &QueryFrontend{deps: deps, metrics: newMetrics()}
}

// Run keeps the rates of the metrics until ctx is done.
func (f *QueryFrontend) Run(ctx context.Context) error { return f.metrics.run(ctx) }

// ServeHTTP implements http.Handler.
func (f *QueryFrontend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.EscapedPath() // The original takes paths as they are written.
	if path == "/metrics" {
		if r.Method != http.MethodGet {
			only(w, r, http.MethodGet)
			return
		}
		reply{code: http.StatusOK, body: f.metricsJSON(calling(r))}.write(w)
		return
	}
	name, verb, ok := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/"), "/")
	if !ok || verb != "predict" && verb != "update" {
		nowhere(w, r)
		return
	}
	if r.Method != http.MethodPost {
		only(w, r, http.MethodPost)
		return
	}
	app, err := f.deps.Applications.Application(name)
	if status.Code(err) == codes.NotFound {
		nowhere(w, r)
		return
	}
	answer := f.update
	if verb == "predict" {
		answer = f.predict
	}
	if err != nil {
		failure(err).write(w)
		return
	}
	b := f.deps.Limits.decode(w, r)
	answer(calling(r), app, b).write(w)
}

// failure is the answer to a query that our services refuse.
func failure(err error) reply {
	code := httpCode(err)
	if code == http.StatusInternalServerError {
		return text(code, unexpected)
	}
	r := queryError(code, "Query processing error", status.Convert(err).Message())
	r.err = err
	return r
}

func queryError(code int, what, cause string) reply {
	b := appendMember([]byte{'{'}, "error", what)
	return reply{code: code, body: append(appendMember(b, "cause", cause), '}')}
}

// takes returns what an application takes. What the original has no word for is read as doubles, and
// refused by our services.
func takes(app *clipperv1.Application) inputType {
	if t := typeOf(app.GetInputs()); t != "" {
		return t
	}
	return typeDoubles
}

func (f *QueryFrontend) predict(ctx context.Context, app *clipperv1.Application, b *body) reply {
	inputs := b.questions(takes(app))
	version, versioned := b.root.get("version")
	if versioned {
		version.text = b.string("version")
	}
	if b.err != nil {
		return queryError(http.StatusBadRequest, "Json error", schemaError(b.err, querySchema))
	}
	_, single := b.root.get("input")
	var answers []answer
	for batch := range slices.Chunk(inputs, maxBatch) {
		start := time.Now()
		var (
			more []answer
			err  error
		)
		switch linked := links(app); {
		case !versioned || len(linked) == 0:
			more, err = f.ask(ctx, app, batch)
		case len(linked) > 1:
			return queryError(http.StatusBadRequest, "Query processing error", "Too many models linked to application "+app.GetName())
		default:
			var refused *reply
			if more, refused, err = f.askVersion(ctx, app, linked[0], version.text, batch); refused != nil {
				return *refused
			}
		}
		if err != nil {
			return failure(err)
		}
		f.metrics.observe(app.GetName(), more, time.Since(start))
		answers = append(answers, more...)
	}
	id := f.next.Add(int64(len(answers))) - int64(len(answers))
	if single || len(answers) == 1 {
		return reply{code: http.StatusOK, body: answers[0].append(nil, id)}
	}
	body := appendList([]byte(`{"batch_predictions":`), answers, func(b []byte, a answer) []byte {
		id++
		return a.append(b, id-1)
	})
	return reply{code: http.StatusOK, body: append(body, '}')}
}

// answer is the answer to one query, and what models had part in it.
type answer struct {
	output      string
	explanation string // Why it is the default; empty when it is not.
	predictions []*clipperv1.ModelPrediction
}

func (a answer) append(b []byte, id int64) []byte {
	b = append(b, `{"query_id":`...)
	b = strconv.AppendInt(b, id, 10)
	b = appendOutput(append(b, `,"output":`...), a.output)
	b = strconv.AppendBool(append(b, `,"default":`...), a.explanation != "")
	if a.explanation != "" {
		b = appendMember(b, "default_explanation", a.explanation)
	}
	return append(b, '}')
}

// ask asks an application.
func (f *QueryFrontend) ask(ctx context.Context, app *clipperv1.Application, inputs []*clipperv1.Tensor) ([]answer, error) {
	if len(inputs) == 1 {
		response, err := f.deps.Queries.Query(ctx, &clipperv1.QueryRequest{Application: app.GetName(), Inputs: inputs})
		if err != nil {
			return nil, err
		}
		a, err := answerOf(app, response)
		return []answer{a}, err
	}
	request := &clipperv1.QueryBatchRequest{Application: app.GetName()}
	for _, in := range inputs {
		request.Queries = append(request.Queries, &clipperv1.BatchQuery{Inputs: []*clipperv1.Tensor{in}})
	}
	response, err := f.deps.Queries.QueryBatch(ctx, request)
	if err != nil {
		return nil, err
	}
	answers := make([]answer, len(response.GetResults()))
	for i, result := range response.GetResults() {
		if e := result.GetError(); e != nil {
			// The original has no errors of single queries of a batch.
			return nil, status.Error(codes.Code(e.GetCode()), e.GetMessage())
		}
		if answers[i], err = answerOf(app, result.GetResponse()); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

func answerOf(app *clipperv1.Application, r *clipperv1.QueryResponse) (answer, error) {
	a := answer{predictions: r.GetPredictions()}
	var err error
	switch {
	case !r.GetIsDefault():
		a.output, err = outputText(r.GetOutputs())
		return a, err
	case r.GetDefaultReason() == clipperv1.DefaultReason_DEFAULT_REASON_NO_REPLICA:
		a.explanation = explainNoModel
	case r.GetDefaultReason() == clipperv1.DefaultReason_DEFAULT_REASON_LOW_CONFIDENCE:
		a.explanation = explainConfidence
	default:
		a.explanation = explainLate
	}
	a.output = defaultText(app)
	return a, nil
}

// askVersion asks a version of the model that an application is linked to.
func (f *QueryFrontend) askVersion(ctx context.Context, app *clipperv1.Application, model, version string, inputs []*clipperv1.Tensor) ([]answer, *reply, error) {
	request := &clipperv1.PredictModelRequest{Model: model, Version: version, Timeout: app.GetLatencyObjective()}
	for _, in := range inputs {
		request.Rows = append(request.Rows, &clipperv1.ModelRow{Inputs: []*clipperv1.Tensor{in}})
	}
	response, err := f.deps.Queries.PredictModel(ctx, request)
	if err != nil {
		return nil, nil, err
	}
	answers := make([]answer, len(response.GetPredictions()))
	for i, p := range response.GetPredictions() {
		a := answer{predictions: []*clipperv1.ModelPrediction{p}, output: defaultText(app)}
		switch p.GetStatus() {
		case clipperv1.PredictionStatus_PREDICTION_STATUS_OK:
			a.output, err = outputText(p.GetOutputs())
		case clipperv1.PredictionStatus_PREDICTION_STATUS_NOT_FOUND:
			refused := queryError(http.StatusBadRequest, "Query processing error", "Requested version: "+version+" does not exist for model: "+model)
			return nil, &refused, nil
		case clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA:
			a.explanation = explainNoModel
		default:
			a.explanation = explainLate
		}
		if err != nil {
			return nil, nil, err
		}
		answers[i] = a
	}
	return answers, nil, nil
}

// update takes feedback, and does with it what the original does: nothing, for its only policy learned
// nothing. Only the user 0 has a state to update.
func (f *QueryFrontend) update(_ context.Context, app *clipperv1.Application, b *body) reply {
	user := b.int("uid")
	if v, ok := b.member("input"); ok {
		b.question("input", v, takes(app))
	}
	b.double("label")
	if b.err != nil {
		return text(http.StatusBadRequest, "%s", schemaError(b.err, updateSchema))
	}
	received := 0
	if user == 0 {
		received = 1
	}
	return text(http.StatusOK, "Feedback received? %d", received)
}
