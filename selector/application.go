// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/internal/tensor"
	"github.com/clipper-serving/clipper/selector/features"
	"github.com/clipper-serving/clipper/selector/output"
	"github.com/clipper-serving/clipper/selector/policy"
)

// documents is the prefix of the applications' documents.
const documents = "applications/"

// Names of sums besides the policy's statistics. Of the state, how many feedbacks were counted; of
// each model, how many of its losses are known, and their sum.
const (
	fieldObservations = "observations"
	statisticCount    = "count"
	statisticLoss     = "loss"
)

// record is an application's document.
type record struct {
	// Incarnation tells what was learned by this application from what was learned by one of the same
	// name before, or before a reset.
	Incarnation uint64 `json:"incarnation,string"`
	// Application is in the JSON form of protobuf.
	Application json.RawMessage `json:"application"`
	// Canary is how far its canary has come.
	Canary *canaryProgress `json:"canary,omitempty"`
}

func encodeRecord(incarnation uint64, a *clipperv1.Application, canary *canaryProgress) ([]byte, error) {
	a = proto.CloneOf(a)
	a.Etag = ""
	text, err := protojson.Marshal(a)
	if err != nil {
		return nil, err
	}
	return json.Marshal(record{Incarnation: incarnation, Application: text, Canary: canary})
}

// application is an application as queries use it. Immutable.
type application struct {
	proto       *clipperv1.Application
	name        string
	revision    store.Revision
	incarnation uint64
	panel       *policy.Panel
	policy      policy.Policy
	dimension   int          // how many features the policy wants; 0 for none
	remote      remotePolicy // nil when policy is all there is
	spec        output.Spec

	keys   []string // the models as the application lists them: "name" or "name:version"
	models map[string]int
	refs   []*internalv1.ModelReference
	// Names of the sums, [model][statistic] as in the state, and for each model.
	statistics     []string
	counts, losses []string

	sharedKey     string // of its shared sums
	contextPrefix string // of the sums of its contexts
	togetherKey   string // of the sums of pairs of its models
	canaryPrefix  string // of the sums of its canaries
	shared        *stateCopy

	defaultOutputs []*clipperv1.Tensor
	objective      time.Duration
	lifetime       time.Duration
	metrics        *applicationMetrics
	trial          *trial // nil without a canary
	recent         *recent
	sampled        uint64 // how many decisions of 2^53 are logged

	contextLifetime time.Duration // 0 for ever
}

// decode makes an application of its document.
func (s *Service) decode(document store.Document) (*application, error) {
	var r record
	if err := json.Unmarshal(document.Value, &r); err != nil {
		return nil, fmt.Errorf("decode application: %w", err)
	}
	a := &clipperv1.Application{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(r.Application, a); err != nil {
		return nil, fmt.Errorf("decode application: %w", err)
	}
	a.Etag = etag(document.Revision)
	app, err := newApplication(a, r.Incarnation)
	if err != nil {
		return nil, err
	}
	app.revision = document.Revision
	app.metrics = s.metrics.application(app)
	app.recent = s.recent.of(app.name)
	app.remote = s.remotePolicy(app)
	if a.Canary != nil && r.Canary != nil {
		app.trial = newTrial(app, r.Canary, s.canaries.tally)
	}
	return app, nil
}

// newApplication makes of a complete and valid message what queries use.
func newApplication(a *clipperv1.Application, incarnation uint64) (*application, error) {
	chosen, err := newPolicy(a.GetPolicy())
	if err != nil {
		return nil, err
	}
	n := len(a.Models)
	if n > policy.MaxModels {
		return nil, fmt.Errorf("there are %d models, want at most %d", n, policy.MaxModels)
	}
	dimension := 0
	if contextual, ok := chosen.(policy.Contextual); ok {
		dimension = contextual.Dimension()
	}
	prefix := "selection/" + a.Name + "/" + strconv.FormatUint(incarnation, 36)
	app := &application{
		proto:         a,
		name:          a.Name,
		incarnation:   incarnation,
		policy:        chosen,
		dimension:     dimension,
		spec:          output.New(a.Output),
		models:        make(map[string]int, n),
		sharedKey:     prefix + "/shared",
		contextPrefix: prefix + "/context/",
		togetherKey:   prefix + "/together",
		canaryPrefix:  prefix + "/canary/",
		objective:     a.LatencyObjective.AsDuration(),
		lifetime:      a.FeedbackLifetime.AsDuration(),
		shared:        newStateCopy(),
		sampled:       sampleOf(a.DecisionLog.GetSampleRate()),

		contextLifetime: a.ContextLifetime.AsDuration(),
	}
	members := make([]policy.Member, n)
	for i, m := range a.Models {
		key := modelKey(m)
		members[i] = policy.Member{Weight: m.Weight, Group: m.Group, Shadow: m.Shadow}
		app.models[key] = i
		app.keys = append(app.keys, key)
		app.refs = append(app.refs, &internalv1.ModelReference{Model: m.Model, Version: m.Version})
		for _, statistic := range chosen.Statistics() {
			app.statistics = append(app.statistics, statistic+"/"+key)
		}
		app.counts = append(app.counts, statisticCount+"/"+key)
		app.losses = append(app.losses, statisticLoss+"/"+key)
	}
	var ok bool
	if app.panel, ok = policy.NewPanel(chosen, members); !ok {
		return nil, errors.New("no model has a weight and may answer")
	}
	answer, err := app.spec.Output(a.DefaultOutput)
	if err != nil {
		return nil, fmt.Errorf("default output: %w", err)
	}
	app.defaultOutputs = []*clipperv1.Tensor{app.spec.Tensor(answer, nil)}
	return app, nil
}

// features appends what the policy sees of an input to dst, which is nothing for most policies.
func (a *application) features(in *tensor.Input, dst []float64) []float64 {
	if a.dimension == 0 {
		return nil
	}
	tensors, err := in.Tensors()
	if err != nil {
		return nil // Models will refuse it; until then it is an input of which nothing is known.
	}
	return features.Append(dst, tensors, a.dimension)
}

// stateKey returns the key of a context's sums.
func (a *application) stateKey(userContext string) string {
	if userContext == "" {
		return a.sharedKey
	}
	return a.contextPrefix + userContext
}

// modelKey is how the application lists a model.
func modelKey(m *clipperv1.ApplicationModel) string {
	if m.Version == "" {
		return m.Model
	}
	return m.Model + ":" + m.Version
}

func etag(r store.Revision) string { return strconv.FormatUint(uint64(r), 36) }
