// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clipper-serving/clipper/containerrpc/check"
	"github.com/clipper-serving/clipper/containerrpc/profile"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// profileTimeout is how long an answer may take when nothing else is said.
const profileTimeout = 30 * time.Second

type profileCmd struct {
	Name       string        `arg:"" optional:"" complete:"model" placeholder:"MODEL[:VERSION]" help:"The model; the current version unless one is named."`
	Address    string        `xor:"address" placeholder:"ADDRESS" help:"Where a container serves that is not deployed: unix:/path or host:port."`
	Replica    string        `xor:"address" placeholder:"ID" help:"The replica to measure. Default: the first one that is ready."`
	Sample     []string      `sep:"none" placeholder:"JSON" help:"An input that the model accepts, as JSON or @FILE; may be repeated. Default: inputs are made up from the signature."`
	SLO        time.Duration `name:"slo" placeholder:"DURATION" help:"A latency objective: show the largest batch for it."`
	Rate       float64       `placeholder:"QUERIES" help:"Queries per second: with --slo, show how many replicas they need."`
	Burstiness float64       `default:"4" placeholder:"N" help:"For --rate: how bursty queries may be, as the variance of their number in a short time relative to its mean; 1 is a Poisson process. Default: ${default}."`
	MaxBatch   int           `placeholder:"ROWS" help:"The largest batch to try. Default: what the version allows, or 4096."`
	MaxLatency time.Duration `placeholder:"DURATION" help:"Try no batches larger than one that takes longer. Default: --slo, or 1s."`
	Duration   time.Duration `default:"10s" placeholder:"DURATION" help:"About how long to measure. Default: ${default}."`
	Rounds     int           `default:"200" placeholder:"N" help:"At most how many batches of each size. Default: ${default}."`
	SVG        string        `name:"svg" placeholder:"FILE" help:"Draw the curve into a file too."`
	adminOptions
}

func (profileCmd) Help() string {
	return `Batches go to the container itself, past the queue. While it also has queries to answer, it looks slower than it is, and
they wait.

Examples:

    clipper profile digits --slo 20ms --rate 100000
    clipper profile digits:2 --replica 1 --sample @image.json --svg digits.svg
    clipper profile --address unix:/tmp/digits --json`
}

// profileReport is the JSON document of a profile.
type profileReport struct {
	Model   string `json:"model,omitempty"`
	Version string `json:"version,omitempty"`
	Replica string `json:"replica,omitempty"`
	Address string `json:"address"`
	*profile.Profile
	Objective *profileObjective `json:"objective,omitempty"`
}

// profileObjective is what a profile means for an objective.
type profileObjective struct {
	SLOMicros float64 `json:"slo_micros"`
	// Batch is that of a single replica.
	Batch profile.Batch `json:"batch"`
	// Rate is in queries per second; Needs are for it.
	Rate  float64        `json:"rate,omitempty"`
	Needs []profile.Need `json:"needs,omitempty"`
}

func (p *profileCmd) check() error {
	switch {
	case (p.Name == "") == (p.Address == ""):
		return usagef("what is to be measured? A model, or a container with --address")
	case p.Replica != "" && p.Name == "":
		return usagef("--replica needs a model")
	case p.SLO < 0 || p.MaxLatency < 0 || p.Timeout < 0 || p.MaxBatch < 0 || !(p.Rate >= 0):
		return usagef("--slo, --rate, --max-batch, --max-latency and --timeout must not be negative")
	case p.MaxBatch > profile.MostRows:
		return usagef("--max-batch must be at most %d", profile.MostRows)
	case p.Rate > 0 && p.SLO == 0:
		return usagef("--rate needs --slo: how many replicas it takes depends on how long queries may wait")
	case p.Rate > 1e12 || !(p.Burstiness >= 1 && p.Burstiness <= 1e6):
		return usagef("--rate must be at most 1e12, and --burstiness from 1 to 1e6")
	case p.Duration <= 0 || p.Rounds < 1:
		return usagef("--duration and --rounds must be positive")
	}
	return nil
}

func (p *profileCmd) Run(c *client) error {
	if err := p.check(); err != nil {
		return err
	}
	o := profile.Options{Timeout: p.Timeout, MaxRows: p.MaxBatch, MaxLatency: p.MaxLatency, Time: p.Duration, Rounds: p.Rounds, SLO: p.SLO}
	for _, sample := range p.Sample {
		text, err := c.readInput(sample)
		if err != nil {
			return err
		}
		o.Samples = append(o.Samples, text)
	}
	report := profileReport{Address: p.Address}
	if p.Name != "" {
		if err := p.find(c, &report, &o); err != nil {
			return err
		}
	}
	if o.Timeout == 0 {
		o.Timeout = profileTimeout
	}
	if o.MaxRows == 0 {
		o.MaxRows = profile.DefaultRows
	}
	if o.MaxLatency == 0 {
		if o.MaxLatency = p.SLO; p.SLO == 0 {
			o.MaxLatency = time.Second
		}
	}
	progress := c.progress()
	measured, err := profile.Run(c.ctx, report.Address, o, progress.show)
	progress.end()
	switch {
	case c.ctx.Err() != nil:
		return interrupted
	case measured == nil && errors.Is(err, check.ErrUnreachable):
		return &failure{code: ExitUnreachable, message: err.Error()}
	case measured == nil:
		return err
	}
	report.Profile = measured
	p.interpret(&report)
	return errors.Join(p.write(c, report), failed(measured, err))
}

// find finds the replica to measure.
func (p *profileCmd) find(c *client, report *profileReport, o *profile.Options) error {
	service, err := c.models()
	if err != nil {
		return err
	}
	model, version, _ := strings.Cut(p.Name, ":")
	if version, err = c.version(service, model, version); err != nil {
		return err
	}
	response, err := service.GetModelVersion(c.ctx, &clipperv1.GetModelVersionRequest{Model: model, Version: version})
	if err != nil {
		return err
	}
	v := response.GetVersion()
	replicas := v.GetReplicaStatus()
	i := slices.IndexFunc(replicas, func(r *clipperv1.Replica) bool {
		return r.GetState() == clipperv1.ReplicaState_REPLICA_STATE_READY && (p.Replica == "" || r.GetId() == p.Replica)
	})
	if i < 0 {
		what := "no replica is ready"
		if p.Replica != "" {
			what = fmt.Sprintf("replica %s is not ready, or does not exist", p.Replica)
		}
		return fmt.Errorf("%s:%s cannot be measured: %s (`clipper model show %s` says more)", model, version, what, model)
	}
	report.Model, report.Version, report.Replica, report.Address = model, version, replicas[i].GetId(), replicas[i].GetAddress()
	if o.MaxRows == 0 {
		o.MaxRows = int(min(v.GetBatching().GetMaxBatchRows(), profile.MostRows))
	}
	return nil
}

func (p *profileCmd) interpret(report *profileReport) {
	if p.SLO == 0 {
		return
	}
	report.Objective = &profileObjective{SLOMicros: float64(p.SLO) / float64(time.Microsecond), Batch: report.Plan(p.SLO), Rate: p.Rate}
	if p.Rate == 0 {
		return
	}
	for _, burstiness := range slices.Compact([]float64{0, 1, p.Burstiness}) {
		report.Objective.Needs = append(report.Objective.Needs, report.Need(p.SLO, p.Rate, burstiness))
	}
}

// failed returns the error of a measurement of which only a part succeeded.
func failed(measured *profile.Profile, err error) error {
	if err != nil {
		return fmt.Errorf("the container died: %w", err)
	}
	for _, point := range measured.Points {
		if point.Error != "" {
			return fmt.Errorf("batches of %d rows fail, so nothing is said of them and of larger ones: %s", point.Rows, point.Error)
		}
	}
	return nil
}

func (p *profileCmd) write(c *client, report profileReport) error {
	title := "container " + report.Address
	if report.Model != "" {
		title = fmt.Sprintf("%s:%s, replica %s at %s", report.Model, report.Version, report.Replica, report.Address)
	}
	if p.SVG != "" {
		image := report.SVG(title)
		if image == nil {
			return errors.New("--svg: there is no curve to draw, since only one size was measured")
		}
		if err := os.WriteFile(p.SVG, image, 0o666); err != nil { //nolint:gosec // As the user's umask says.
			return fmt.Errorf("--svg: %w", err)
		}
	}
	if c.JSON {
		return c.writeJSON(report)
	}
	return c.showProfile(title, report)
}

func (c *client) showProfile(title string, r profileReport) error {
	if _, err := fmt.Fprintf(c.Stdout, "%s\n\n", title); err != nil {
		return err
	}
	t := &table{header: []string{"ROWS", "BATCHES", "MEDIAN", "95%", "99%", "MODEL ALONE", "ROWS/S"}}
	for _, point := range r.Points {
		if point.Error != "" {
			t.add(strconv.Itoa(point.Rows), "failed")
			continue
		}
		alone := ""
		if point.ModelMicros > 0 {
			alone = profile.Micros(point.ModelMicros)
		}
		t.add(strconv.Itoa(point.Rows), strconv.Itoa(point.Batches), profile.Micros(point.MedianMicros), profile.Micros(point.P95Micros),
			profile.Micros(point.P99Micros), alone, fmt.Sprintf("%.0f", point.RowsPerSecond))
	}
	if err := c.writeTable(t); err != nil {
		return err
	}
	if plot := r.Text(76, 18); plot != "" {
		_, _ = fmt.Fprintf(c.Stdout, "\n%s", plot)
	}
	c.blankLine()
	facts := &table{}
	facts.add("latency", fmt.Sprintf("%s, within %.0f%% of each median", r.Line, 100*r.Line.Deviation))
	facts.add("sizes", "no larger ones: "+r.Stopped)
	memory := "unknown: the container's process cannot be seen from here"
	if m := r.Memory; m != nil {
		memory = fmt.Sprintf("%s; at most %s until now", mebibytes(m.ResidentBytes), mebibytes(m.PeakBytes))
		if m.Processes > 1 {
			memory += fmt.Sprintf("; %d processes", m.Processes)
		}
	}
	facts.add("memory", memory)
	if r.Objective != nil {
		facts.add("one replica", oneReplica(r.Objective.SLOMicros, r.Objective.Batch))
	}
	if err := facts.write(c.Stdout, false); err != nil || r.Objective == nil || len(r.Objective.Needs) == 0 {
		return err
	}
	return c.showNeeds(r.Objective)
}

// oneReplica says what the largest batch is and why.
func oneReplica(slo float64, b profile.Batch) string {
	if b.Rows == 0 {
		return fmt.Sprintf("cannot keep %s: a query that just missed a batch waits for it, and a batch of one takes longer than half of that", profile.Micros(slo))
	}
	text := fmt.Sprintf("batches of at most %d rows for %s: 99%% take %s, for which a query waits that just missed one; %.0f rows a second",
		b.Rows, profile.Micros(slo), profile.Micros(b.P99Micros), b.RowsPerSecond)
	if b.Largest {
		text += "; larger batches may do too, but were not measured"
	}
	return text
}

func (c *client) showNeeds(o *profileObjective) error {
	_, _ = fmt.Fprintf(c.Stdout, "\n%.6g queries a second, 99%% of them within %s, need\n\n", o.Rate, profile.Micros(o.SLOMicros))
	t := &table{header: []string{"IF THEY COME", "REPLICAS", "BATCH", "BUSY", "MEMORY"}}
	for _, n := range o.Needs {
		when := fmt.Sprintf("in bursts, variance %g times the mean", n.Burstiness)
		switch n.Burstiness {
		case 0:
			when = "evenly: no headroom"
		case 1:
			when = "at random (Poisson)"
		}
		if n.Replicas == 0 {
			t.add(when, fmt.Sprintf("none up to %d", profile.MostReplicas))
			continue
		}
		memory := "unknown"
		if n.MemoryBytes > 0 {
			memory = mebibytes(n.MemoryBytes)
		}
		t.add(when, strconv.Itoa(n.Replicas), strconv.Itoa(n.Batch.Rows), fmt.Sprintf("%.0f%%", 100*n.Busy), memory)
	}
	return c.writeTable(t)
}

func mebibytes(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
