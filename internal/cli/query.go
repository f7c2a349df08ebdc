// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/clipper-serving/clipper/frontend/naturaljson"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

type queryCmd struct {
	App      string `arg:"" complete:"application" help:"The application."`
	Input    string `arg:"" optional:"" help:"The input as JSON, @FILE, or - for standard input."`
	Context  string `placeholder:"NAME" help:"The user, session or device whose selection state is used."`
	ID       string `name:"id" placeholder:"ID" help:"An identifier of your choice, which comes back and is in logs."`
	Priority uint32 `placeholder:"N" help:"How much it matters when a model is overloaded: 1, the most, to 8. Default: 4."`
	Batch    string `placeholder:"FILE" help:"Ask many queries: a file with the JSON of one input on each line, or - for standard input. Writes one line for each."`
	queryOptions
}

func (queryCmd) Help() string {
	return `Examples:

    clipper query digits '[0.0, 0.3, 0.9]'
    clipper query sentiment '"what a day"' --context user-7 --timeout 20ms
    clipper query images '{"b64": "iVBORw0K..."}' --json
    clipper query digits @image.json
    clipper query digits --batch images.jsonl
    clipper query shift -- -5`
}

// answer is a query's answer in the form of the REST API.
type answer struct {
	Output        json.RawMessage `json:"output"`
	IsDefault     bool            `json:"is_default"`
	DefaultReason string          `json:"default_reason,omitempty"`
	Confidence    float64         `json:"confidence"`
	Predictions   []prediction    `json:"predictions"`
	FeedbackID    string          `json:"feedback_id,omitempty"`
	ID            string          `json:"id,omitempty"`
}

type prediction struct {
	Model      string          `json:"model"`
	Version    string          `json:"version,omitempty"`
	Status     string          `json:"status"`
	Output     json.RawMessage `json:"output,omitempty"`
	Message    string          `json:"message,omitempty"`
	RetryAfter int64           `json:"retry_after_ms,omitempty"`
	Cached     bool            `json:"cached"`
	Propensity float64         `json:"propensity"`
	Shadow     bool            `json:"shadow"`
}

func newAnswer(r *clipperv1.QueryResponse) (*answer, error) {
	output, err := naturaljson.AppendTensors(nil, r.GetOutputs())
	if err != nil {
		return nil, fmt.Errorf("the server's output: %w", err)
	}
	a := &answer{
		Output: output, IsDefault: r.GetIsDefault(), Confidence: r.GetConfidence(),
		Predictions: []prediction{}, FeedbackID: r.GetFeedbackId(), ID: r.GetId(),
	}
	if r.GetDefaultReason() != clipperv1.DefaultReason_DEFAULT_REASON_UNSPECIFIED {
		a.DefaultReason = r.GetDefaultReason().String()
	}
	for _, p := range r.GetPredictions() {
		q := prediction{
			Model: p.GetModel(), Version: p.GetVersion(), Status: p.GetStatus().String(), Message: p.GetMessage(),
			RetryAfter: p.GetRetryAfter().AsDuration().Milliseconds(), Cached: p.GetCached(), Propensity: p.GetPropensity(), Shadow: p.GetShadow(),
		}
		if len(p.GetOutputs()) > 0 {
			if q.Output, err = naturaljson.AppendTensors(nil, p.GetOutputs()); err != nil {
				return nil, fmt.Errorf("the output of model %s: %w", p.GetModel(), err)
			}
		}
		a.Predictions = append(a.Predictions, q)
	}
	return a, nil
}

func (q *queryCmd) Run(c *client) error {
	switch {
	case q.Batch != "" && q.Input != "":
		return usagef("--batch and INPUT exclude each other")
	case q.Batch != "" && q.ID != "":
		return usagef("--batch and --id exclude each other")
	case q.Batch != "":
		return q.runBatch(c)
	case q.Input == "":
		return &failure{code: ExitUsage, message: "which input? Expected INPUT as JSON, @FILE, or - for standard input", details: q.Help()}
	}
	input, err := c.readInput(q.Input)
	if err != nil {
		return err
	}
	service, err := q.connect(c)
	if err != nil {
		return err
	}
	response, err := service.Query(c.ctx, &clipperv1.QueryRequest{
		Application: q.App, InputJson: input, Context: q.Context, Id: q.ID, Timeout: q.timeout(), Priority: q.Priority,
	})
	if err != nil {
		return err
	}
	a, err := newAnswer(response)
	if err != nil {
		return err
	}
	if c.JSON {
		return c.writeJSON(a)
	}
	return c.showAnswer(a, response)
}

// connect returns the service. The time that the user gives is the query's own: the call gets more,
// so that an answer that comes at the last moment is not lost on its way.
func (q *queryCmd) connect(c *client) (clipperv1.QueryServiceClient, error) {
	if c.Timeout > 0 {
		c.Timeout += callTimeout
	}
	conn, err := c.queries()
	if err != nil {
		return nil, err
	}
	return clipperv1.NewQueryServiceClient(conn), nil
}

// timeout returns the time that the user gives the query, or nil.
func (q *queryCmd) timeout() *durationpb.Duration {
	if q.Timeout == 0 {
		return nil
	}
	return durationpb.New(q.Timeout)
}

func (c *client) showAnswer(a *answer, r *clipperv1.QueryResponse) error {
	t := &table{}
	output := string(a.Output)
	if a.IsDefault {
		output += fmt.Sprintf("  (the default: %s)", enum(r.GetDefaultReason(), "DEFAULT_REASON_"))
	}
	t.add("output", output)
	t.add("confidence", fmt.Sprintf("%.3f", a.Confidence))
	if a.ID != "" {
		t.add("id", a.ID)
	}
	t.add("feedback id", a.FeedbackID)
	if err := t.write(c.Stdout, false); err != nil || len(a.Predictions) == 0 {
		return err
	}
	c.blankLine()
	t = &table{header: []string{"MODEL", "VERSION", "STATUS", "OUTPUT", "NOTE"}, state: 2}
	for i, p := range a.Predictions {
		note := p.Message
		if p.Cached {
			note = "cached"
		}
		if p.Shadow {
			note = join(note, "shadow")
		}
		t.add(p.Model, p.Version, enum(r.GetPredictions()[i].GetStatus(), "PREDICTION_STATUS_"), string(p.Output), note)
	}
	return c.writeTable(t)
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + ", " + b
}

const (
	// chunkQueries and chunkBytes bound what is sent in one call of a batch, whose queries share
	// the application's latency objective.
	chunkQueries = 64
	chunkBytes   = 1 << 20
	// maxLine is the longest line of a batch.
	maxLine = 64 << 20
)

// result is what became of one query of a batch: an answer or an error.
type result struct {
	Response *answer      `json:"response,omitempty"`
	Error    *resultError `json:"error,omitempty"`
}

type resultError struct {
	Code    string `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"`
}

// runBatch asks the queries of a file, part after part.
func (q *queryCmd) runBatch(c *client) error {
	in := c.Stdin
	if q.Batch != "-" {
		f, err := os.Open(q.Batch)
		if err != nil {
			return fmt.Errorf("open the queries: %w", err)
		}
		defer f.Close() //nolint:errcheck // It is only read.
		in = f
	}
	service, err := q.connect(c)
	if err != nil {
		return err
	}
	progress := c.progress()
	defer progress.end()
	var (
		results  = []result{}
		done     int
		failures int
		size     int
		request  = &clipperv1.QueryBatchRequest{Application: q.App, Timeout: q.timeout()}
	)
	send := func() error {
		if len(request.Queries) == 0 {
			return nil
		}
		response, err := service.QueryBatch(c.ctx, request)
		if err != nil {
			return err
		}
		if len(response.GetResults()) != len(request.Queries) {
			return fmt.Errorf("the server answered %d of %d queries", len(response.GetResults()), len(request.Queries))
		}
		progress.end()
		for _, r := range response.GetResults() {
			one, err := newResult(r)
			if err != nil {
				return err
			}
			if one.Error != nil {
				failures++
			}
			if c.JSON {
				results = append(results, one)
			} else if _, err := fmt.Fprintln(c.Stdout, one); err != nil {
				return err
			}
		}
		done += len(request.Queries)
		if c.Animated {
			progress.show(fmt.Sprintf("%d queries answered", done))
		}
		request.Queries, size = nil, 0
		return nil
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	for number := 1; lines.Scan(); number++ {
		text := bytes.Clone(bytes.TrimSpace(lines.Bytes()))
		if len(text) == 0 {
			continue
		}
		if !json.Valid(text) {
			return usagef("%s: line %d is not JSON: expected one input on each line", q.Batch, number)
		}
		request.Queries = append(request.Queries, &clipperv1.BatchQuery{InputJson: text, Context: q.Context, Priority: q.Priority})
		if size += len(text); size >= chunkBytes || len(request.Queries) == chunkQueries {
			if err := send(); err != nil {
				return err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the queries: %w", err)
	}
	if err := send(); err != nil {
		return err
	}
	if c.JSON {
		if err := c.writeJSON(map[string][]result{"results": results}); err != nil {
			return err
		}
	}
	if failures > 0 {
		return fmt.Errorf("%d of %d queries failed", failures, done)
	}
	return nil
}

func newResult(r *clipperv1.QueryResult) (result, error) {
	if e := r.GetError(); e != nil {
		return result{Error: newResultError(e)}, nil
	}
	a, err := newAnswer(r.GetResponse())
	return result{Response: a}, err
}

// String returns a line: the output, the confidence and a note, or the error, separated by tabs.
func (r result) String() string {
	if r.Error != nil {
		return "error\t" + r.Error.Message
	}
	line := fmt.Sprintf("%s\t%.3f", r.Response.Output, r.Response.Confidence)
	if r.Response.IsDefault {
		line += "\tdefault"
	}
	return line
}
