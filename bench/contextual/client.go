// SPDX-License-Identifier: Apache-2.0

package contextual

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	application = "spoken"
	forAll      = "all" // the model for all speakers
	digits      = 10
)

// data is what train.py writes.
type data struct {
	Models  []string
	Setting struct {
		Eta         float64
		PriorWeight float64 `json:"prior_weight"`
	}
	Recordings []recording
}

type recording struct {
	Speaker  string
	Digit    int
	Index    int
	Features []float32
}

// speakers are the models but the one for all.
func (d *data) speakers() []string { return d.Models[:len(d.Models)-1] }

// of returns the recordings that are wanted.
func (d *data) of(wanted func(recording) bool) (some []recording) {
	for _, r := range d.Recordings {
		if wanted(r) {
			some = append(some, r)
		}
	}
	return some
}

// train makes the Python environment, the models and the data, and returns the interpreter, too.
func train(ctx context.Context, root, archive, folder string, log io.Writer) (d *data, python string, err error) {
	run := func(out io.Writer, program string, args ...string) error {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = root, out, log
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(program), err)
		}
		return nil
	}
	var interpreter strings.Builder
	if err := run(&interpreter, filepath.Join(root, "tools", "venv.sh"), "bench",
		"containerrpc/python/requirements.txt", "containerrpc/adapters/sklearn/requirements.txt"); err != nil {
		return nil, "", fmt.Errorf("make the Python environment: %w", err)
	}
	python = strings.TrimSpace(interpreter.String())
	if err := run(log, python, filepath.Join(root, "bench", "contextual", "train.py"), archive, folder); err != nil {
		return nil, "", fmt.Errorf("train the models: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(folder, "experiment.json"))
	if err != nil {
		return nil, "", err
	}
	d = &data{}
	if err := json.Unmarshal(text, d); err != nil {
		return nil, "", fmt.Errorf("read what train.py wrote: %w", err)
	}
	return d, python, nil
}

// client asks and teaches one application.
type client struct {
	conn     *grpc.ClientConn
	queries  clipperv1.QueryServiceClient
	feedback clipperv1.FeedbackServiceClient
}

func (c *client) close() { _ = c.conn.Close() }

// serve deploys the models, each in a container of its own, and creates the application that asks them all.
func serve(ctx context.Context, c *system.Clipper, d *data, folder string, log io.Writer) (*client, error) {
	app := &clipperv1.Application{
		Name:             application,
		Output:           &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_SCORES, DataType: clipperv1.DataType_DATA_TYPE_FLOAT64},
		DefaultOutput:    structpb.NewListValue(oneAt(-1)),
		LatencyObjective: durationpb.New(10 * time.Second),
		Policy:           &clipperv1.Policy{Name: "exp4", Parameters: map[string]float64{"eta": d.Setting.Eta}},
		PriorWeight:      d.Setting.PriorWeight,
	}
	for _, model := range d.Models {
		_, _ = fmt.Fprintf(log, "deploying %s\n", model)
		err := c.Deploy(ctx, model, &clipperv1.ModelVersion{Container: &clipperv1.Container{
			Source: &clipperv1.Container_Adapter{Adapter: &clipperv1.Adapter{Framework: "sklearn", ModelPath: filepath.Join(folder, model+".joblib")}},
			// The containers share the machine with all else.
			Environment: map[string]string{"SKLEARN_METHOD": "predict_proba", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
		}})
		if err != nil {
			return nil, err
		}
		app.Models = append(app.Models, &clipperv1.ApplicationModel{Model: model})
	}
	if err := c.CreateApplication(ctx, app); err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(c.QueryGRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &client{conn, clipperv1.NewQueryServiceClient(conn), clipperv1.NewFeedbackServiceClient(conn)}, nil
}

// query asks one recording for each context.
func (c *client) query(ctx context.Context, contexts []string, recordings []recording) ([]*clipperv1.QueryResponse, error) {
	request := &clipperv1.QueryBatchRequest{Application: application}
	for i, r := range recordings {
		var features []byte
		for _, x := range r.Features {
			features = binary.LittleEndian.AppendUint32(features, math.Float32bits(x))
		}
		request.Queries = append(request.Queries, &clipperv1.BatchQuery{Context: contexts[i], Inputs: []*clipperv1.Tensor{
			{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{int64(len(r.Features))}, Data: features},
		}})
	}
	batch, err := c.queries.QueryBatch(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	answers := make([]*clipperv1.QueryResponse, len(recordings))
	for i, result := range batch.Results {
		if answers[i] = result.GetResponse(); answers[i] == nil || answers[i].IsDefault {
			return nil, fmt.Errorf("query: %v", result)
		}
	}
	return answers, nil
}

// teach asks one recording for each context, and tells the truth.
func (c *client) teach(ctx context.Context, contexts []string, recordings []recording) error {
	answers, err := c.query(ctx, contexts, recordings)
	if err != nil {
		return err
	}
	request := &clipperv1.FeedbackBatchRequest{Application: application}
	for i, r := range recordings {
		// As a list, so that the loss is what a model left to other digits, not only whether it was right.
		request.Items = append(request.Items, &clipperv1.FeedbackRequest{
			FeedbackId: answers[i].FeedbackId, Observation: &clipperv1.FeedbackRequest_Truth{Truth: structpb.NewListValue(oneAt(r.Digit))},
		})
	}
	batch, err := c.feedback.FeedbackBatch(ctx, request)
	if err != nil {
		return fmt.Errorf("feedback: %w", err)
	}
	for _, result := range batch.Results {
		if result.GetResponse() == nil || result.GetResponse().Duplicate {
			return fmt.Errorf("feedback: %v", result)
		}
	}
	return nil
}

// oneAt is a list that is 1 at a digit.
func oneAt(digit int) *structpb.ListValue {
	list := &structpb.ListValue{}
	for d := range digits {
		x := 0.0
		if d == digit {
			x = 1
		}
		list.Values = append(list.Values, structpb.NewNumberValue(x))
	}
	return list
}

// userErrors are one user's.
type userErrors struct{ clipper, shared, oracle float64 }

// ask asks a user's recordings, and returns the errors of the answers, and of the model for all and the speaker's
// own in the same answers.
func (c *client) ask(ctx context.Context, user string, recordings []recording) (e userErrors, err error) {
	contexts := make([]string, len(recordings))
	for i := range contexts {
		contexts[i] = user
	}
	answers, err := c.query(ctx, contexts, recordings)
	if err != nil {
		return e, err
	}
	share := 1 / float64(len(recordings))
	for i, r := range recordings {
		if best(answers[i].Outputs) != r.Digit {
			e.clipper += share
		}
		for _, p := range answers[i].Predictions {
			if best(p.Outputs) == r.Digit {
				continue
			}
			switch p.Model {
			case forAll:
				e.shared += share
			case r.Speaker:
				e.oracle += share
			}
		}
	}
	return e, nil
}

// best returns the digit of the largest score, or -1.
func best(outputs []*clipperv1.Tensor) int {
	digit, most := -1, math.Inf(-1)
	if len(outputs) == 0 {
		return digit
	}
	for i := 0; i+8 <= len(outputs[0].Data); i += 8 {
		if x := math.Float64frombits(binary.LittleEndian.Uint64(outputs[0].Data[i:])); x > most {
			digit, most = i/8, x
		}
	}
	return digit
}
