// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// batchingFlags say how queries are batched.
type batchingFlags struct {
	Batching  string         `enum:"slo,aimd,quantile,fixed,none," default:"" placeholder:"POLICY" help:"How queries are gathered into batches: slo, aimd, quantile, fixed or none. Default: slo."`
	MaxBatch  uint32         `placeholder:"ROWS" help:"Largest batch; with --batching fixed, its size."`
	MaxDelay  *time.Duration `placeholder:"DURATION" help:"How long a batch that is not full may wait for more queries although a replica is idle. Default: 0."`
	AutoDelay *bool          `negatable:"" help:"Let a batch wait only as far as that gains throughput."`
}

// apply changes what was given, and reports whether anything was.
func (f *batchingFlags) apply(b *clipperv1.Batching) (given bool) {
	if f.Batching != "" {
		b.Policy, given = f.Batching, true
	}
	if f.MaxBatch > 0 {
		b.MaxBatchRows, given = f.MaxBatch, true
	}
	if f.MaxDelay != nil {
		b.MaxDelay, given = durationpb.New(*f.MaxDelay), true
	}
	if f.AutoDelay != nil {
		b.AutoDelay, given = *f.AutoDelay, true
	}
	return given
}

type modelSetBatching struct {
	Name       string `arg:"" complete:"model" help:"The model."`
	OldVersion string `name:"version" placeholder:"V" help:"The version. Default: the current one."`
	batchingFlags
}

func (modelSetBatching) Help() string {
	return "What is not given stays as it is.\n\nExamples:\n\n    clipper model set-batching digits --batching aimd\n    clipper model set-batching digits --max-delay 2ms"
}

func (m *modelSetBatching) Run(c *client) error {
	service, err := c.models()
	if err != nil {
		return err
	}
	version, err := c.version(service, m.Name, m.OldVersion)
	if err != nil {
		return err
	}
	response, err := service.GetModelVersion(c.ctx, &clipperv1.GetModelVersionRequest{Model: m.Name, Version: version})
	if err != nil {
		return err
	}
	settings := &clipperv1.Batching{}
	if b := response.GetVersion().GetBatching(); b != nil {
		settings = proto.CloneOf(b)
	}
	if !m.apply(settings) {
		return usagef("what is to change? One of --batching, --max-batch, --max-delay and --auto-delay")
	}
	changed, err := service.UpdateModelVersion(c.ctx, &clipperv1.UpdateModelVersionRequest{Model: m.Name, Version: version, Batching: settings})
	if err != nil {
		return err
	}
	if c.JSON {
		return c.writeJSON(changed.GetVersion())
	}
	_, err = fmt.Fprintf(c.Stdout, "Batching of %s:%s: %s.\n", m.Name, version, batching(changed.GetVersion().GetBatching()))
	return err
}

// version returns the given version, or else the model's current one.
func (c *client) version(service clipperv1.ModelServiceClient, model, version string) (string, error) {
	if version != "" {
		return version, nil
	}
	response, err := service.GetModel(c.ctx, &clipperv1.GetModelRequest{Model: model})
	return response.GetModel().GetCurrentVersion(), err
}

func batching(b *clipperv1.Batching) string {
	text := b.GetPolicy()
	if b.GetMaxBatchRows() > 0 {
		text += fmt.Sprintf(", at most %d rows", b.GetMaxBatchRows())
	}
	if b.GetLatencyObjective() != nil {
		text += ", in " + duration(b.GetLatencyObjective().AsDuration())
	}
	switch d := b.GetMaxDelay().AsDuration(); {
	case b.GetAutoDelay() && d > 0:
		text += ", delayed where it gains, by at most " + duration(d)
	case b.GetAutoDelay():
		text += ", delayed where it gains"
	case d > 0:
		text += ", delayed by at most " + duration(d)
	}
	return text
}

type modelExplain struct {
	Name string `arg:"" complete:"model" placeholder:"MODEL[:VERSION]" help:"The model; the current version unless one is named."`
}

func (modelExplain) Help() string {
	return "Shows what was learned about how long each replica takes, what waits, why there are so many replicas, and the last batches with the reason for their size.\n\nExamples:\n\n    clipper model explain digits\n    clipper model explain digits:2 --json"
}

func (m modelExplain) Run(c *client) error {
	service, err := c.models()
	if err != nil {
		return err
	}
	model, version, _ := strings.Cut(m.Name, ":")
	if version, err = c.version(service, model, version); err != nil {
		return err
	}
	response, err := service.GetBatching(c.ctx, &clipperv1.GetBatchingRequest{Model: model, Version: version})
	if err != nil {
		return err
	}
	if c.JSON {
		return c.writeJSON(response)
	}
	return c.showBatching(response)
}

func (c *client) showBatching(r *clipperv1.GetBatchingResponse) error {
	q := r.GetQueue()
	facts := &table{}
	facts.add(r.GetModel()+":"+r.GetVersion(), batching(r.GetBatching()))
	facts.add("queue", fmt.Sprintf("%d rows wait, %d are under way; the last one waited %s", q.GetRows(), q.GetInFlightRows(), duration(q.GetDelay().AsDuration())))
	if q.GetDrainRate() > 0 {
		facts.add("capacity", fmt.Sprintf("about %.0f rows a second", q.GetDrainRate()))
	}
	if q.GetOverloaded() {
		facts.add("overload", "what cannot be answered in time is refused when it comes")
	}
	for _, reason := range slices.Sorted(maps.Keys(q.GetDropped())) {
		facts.add("dropped", fmt.Sprintf("%d %s", q.GetDropped()[reason], strings.ReplaceAll(reason, "_", " ")))
	}
	addScaling(facts, r.GetScaling())
	if err := facts.write(c.Stdout, false); err != nil {
		return err
	}
	for _, replica := range r.GetReplicas() {
		if err := c.showReplicaBatching(replica); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) showReplicaBatching(r *clipperv1.ReplicaBatching) error {
	c.blankLine()
	learned := "nothing is known yet"
	if len(r.GetLatencies()) > 0 {
		learned = fmt.Sprintf("a batch takes %s + %s for each row", micros(r.GetFixedMicros()), micros(r.GetRowMicros()))
		if r.GetHopMicros() > 0 {
			learned += ", and " + micros(r.GetHopMicros()) + " there and back"
		}
	}
	target := ""
	if r.GetTargetRows() > 0 {
		target = fmt.Sprintf("; aims at %d rows, 99%% within %s", r.GetTargetRows(), micros(r.GetTailMicros()))
	}
	if _, err := fmt.Fprintf(c.Stdout, "replica %s: %s%s\n  %d batches with %d rows under way; learned from %d batches of up to %d rows\n",
		r.GetReplica(), learned, target, r.GetInFlightBatches(), r.GetInFlightRows(), r.GetObservations(), r.GetLargestRows()); err != nil {
		return err
	}
	if len(r.GetLatencies()) > 0 {
		t := &table{header: []string{"  ROWS", "SEEN", "EXPECTED", "99% WITHIN"}}
		for _, l := range r.GetLatencies() {
			t.add("  "+strconv.Itoa(int(l.GetRows())), micros(l.GetObservedMicros()), micros(l.GetExpectedMicros()), micros(l.GetTailMicros()))
		}
		if err := c.writeTable(t); err != nil {
			return err
		}
	}
	if len(r.GetDecisions()) == 0 {
		return nil
	}
	t := &table{header: []string{"  BATCH", "WAITING", "TIME LEFT", "99% WITHIN", "WHY"}}
	for _, d := range r.GetDecisions() {
		slack := "any"
		if d.GetSlack() != nil {
			slack = duration(d.GetSlack().AsDuration())
		}
		t.add("  "+strconv.Itoa(int(d.GetRows())), strconv.Itoa(int(d.GetWaiting())), slack, micros(d.GetExpectedMicros()), d.GetWhy())
	}
	return c.writeTable(t)
}

// micros writes a number of microseconds as a time.
func micros(us float64) string {
	return duration(time.Duration(us * float64(time.Microsecond)).Round(time.Microsecond))
}
