// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/clipper-serving/clipper/internal/loadgen"
	"github.com/clipper-serving/clipper/internal/loadgen/page"
	"github.com/clipper-serving/clipper/internal/loadgen/target"
	"github.com/clipper-serving/clipper/internal/loadgen/workload"
)

// loadConnections is how many connections there are over gRPC when nothing else is said.
const loadConnections = 4

type loadCmd struct {
	Target      string `arg:"" complete:"application" placeholder:"NAME" help:"The application; over the Open Inference Protocol also a model."`
	Protocol    string `default:"grpc" enum:"grpc,stream,rest,oip-grpc,oip-rest,oip-binary" placeholder:"NAME" help:"grpc, stream or rest of Clipper, or the Open Inference Protocol: oip-grpc, oip-rest (JSON), oip-binary (over HTTP). Default: ${default}."`
	HTTPAddress string `name:"http-address" env:"CLIPPER_HTTP_ADDRESS" default:"127.0.0.1:1337" placeholder:"HOST:PORT" help:"Where queries and feedback go over HTTP."`
	Version     string `name:"model-version" placeholder:"VERSION" help:"The model's version, over the Open Inference Protocol."`
	Connections int    `placeholder:"N" help:"How many connections there are. Default: 4 over gRPC, as many as it takes over HTTP."`

	Rate        string        `xor:"loop" placeholder:"RATE" help:"Open loop: queries per second; 100..1000 grows, a comma separates stages, @1m says how long one is. Default: 100."`
	Arrivals    string        `default:"poisson" enum:"poisson,constant,bursty" placeholder:"KIND" help:"Open loop: poisson, constant or bursty. Default: ${default}."`
	Concurrency int           `xor:"loop" placeholder:"N" help:"Closed loop instead: so many callers, each of which waits for its answer."`
	Duration    time.Duration `default:"30s" placeholder:"DURATION" help:"How long to measure. Default: ${default}."`
	WarmUp      time.Duration `default:"2s" placeholder:"DURATION" help:"How long to send before that. Default: ${default}."`
	MaxInFlight int           `default:"10000" placeholder:"N" help:"Open loop: the most queries in flight; more wait, and their time counts. Default: ${default}."`
	Seed        uint64        `placeholder:"N" help:"Makes what is random repeatable. Default: another one for each run."`

	File     string  `placeholder:"FILE" help:"Inputs in turn: the JSON of one on each line, or an object with input, truth, at, context, priority, timeout; - for standard input. Default: made up from the server's metadata."`
	Replay   bool    `xor:"loop" help:"Send the file once, at its own times (at, in seconds)."`
	Speed    float64 `default:"1" placeholder:"X" help:"With --replay: so much faster. Default: ${default}."`
	Distinct int     `placeholder:"N" help:"How many different inputs are made up. Default: another one for each query, which no cache knows."`
	Contexts int     `placeholder:"N" help:"So many contexts take turns at random: load-0, load-1 ..."`
	Priority uint32  `placeholder:"N" help:"How much queries matter when a model is overloaded: 1, the most, to 8."`

	Feedback      float64       `placeholder:"SHARE" help:"Give feedback for this share of the answers, from 0 to 1: the truth of the file."`
	FeedbackDelay time.Duration `placeholder:"DURATION" help:"How long after the answer feedback comes. Default: at once."`

	SLO      string `name:"slo" placeholder:"BARS" help:"Exit with 6 when a bar is missed, as in p99=20ms,errors=0.1%,defaults=1%,rate=90."`
	Baseline string `placeholder:"FILE" help:"Compare with an earlier run: a file that --save or --json wrote."`
	Save     string `placeholder:"FILE" help:"Write the JSON document into a file too."`
	HTML     string `name:"html" placeholder:"FILE" help:"Write a report with charts for a browser."`
	queryOptions
}

func (loadCmd) Help() string {
	return `An open loop sends when a query is due, however long answers take, and counts latency from that moment.

Examples:

    clipper load digits --rate 500 --duration 1m
    clipper load digits --rate 100..2000@2m,2000@30s --arrivals bursty --html load.html
    clipper load digits --protocol rest --concurrency 32
    clipper load digits --file images.jsonl --feedback 0.1 --slo p99=20ms,errors=0.1%
    clipper load resnet --protocol oip-grpc --address triton:8001 --save before.json
    clipper load digits --file log.jsonl --replay --speed 2 --baseline before.json`
}

func (l *loadCmd) overHTTP() bool {
	return l.Protocol == "rest" || l.Protocol == "oip-rest" || l.Protocol == "oip-binary"
}

func (l *loadCmd) check() error {
	switch {
	case l.Duration <= 0 || l.WarmUp < 0 || l.Timeout < 0 || l.FeedbackDelay < 0:
		return usagef("--duration must be positive, --warm-up, --timeout and --feedback-delay must not be negative")
	case l.Duration+l.WarmUp > 1000*time.Hour || l.Timeout > time.Hour || l.FeedbackDelay > time.Hour:
		return usagef("--duration and --warm-up are 1000 hours at most, --timeout and --feedback-delay one")
	case l.Concurrency < 0 || l.Concurrency > 100_000 || l.MaxInFlight < 1 || l.MaxInFlight > 1_000_000:
		return usagef("--concurrency must be from 1 to 100000, --max-in-flight from 1 to 1000000")
	case l.Connections < 0 || l.Connections > 10_000 || l.Contexts < 0 || l.Distinct < 0 || l.Distinct > 1_000_000:
		return usagef("--connections must be from 1 to 10000, --contexts not be negative, --distinct from 0 to 1000000")
	case l.Priority > 8:
		return usagef("--priority must be from 1 to 8")
	case !(l.Feedback >= 0 && l.Feedback <= 1):
		return usagef("--feedback must be from 0 to 1")
	case l.Feedback > 0 && l.File == "":
		return usagef("--feedback needs --file: only a file knows what is true")
	case l.Replay && l.File == "":
		return usagef("--replay needs --file")
	case !(l.Speed > 0 && l.Speed <= 1e6):
		return usagef("--speed must be positive, and at most 1e6")
	case l.Version != "" && !strings.HasPrefix(l.Protocol, "oip"):
		return usagef("--model-version is for the Open Inference Protocol: an application chooses its models itself")
	}
	return nil
}

func (l *loadCmd) Run(c *client) error {
	if err := l.check(); err != nil {
		return err
	}
	if l.Seed == 0 {
		l.Seed = rand.Uint64N(1e9) + 1 //nolint:gosec // It is no secret.
	}
	config := loadgen.Config{
		Arrivals: loadgen.Arrivals(l.Arrivals), Concurrency: l.Concurrency, Duration: l.Duration, WarmUp: l.WarmUp, MaxInFlight: l.MaxInFlight,
		Timeout: l.Timeout + callTimeout, Feedback: l.Feedback, FeedbackDelay: l.FeedbackDelay, Seed: l.Seed,
	}
	objectives, baseline, err := l.bars()
	if err != nil {
		return err
	}
	if l.Concurrency == 0 && !l.Replay {
		if l.Rate == "" {
			l.Rate = "100"
		}
		if config.Stages, err = loadgen.ParseStages(l.Rate, l.Duration); err != nil {
			return usagef("--rate: %s", err)
		}
	}
	items, err := l.items(c, &config)
	if err != nil {
		return err
	}
	to, err := l.connect(c)
	if err != nil {
		return err
	}
	defer to.Close()
	sender, err := l.sender(c, to, items)
	if err != nil {
		return err
	}
	progress := c.progress()
	report := loadgen.Run(c.ctx, config, sender, func(p loadgen.Progress) {
		// Every second where the line is overwritten, every ten where it stays.
		if c.Animated || int(p.Elapsed.Seconds())%10 == 0 {
			progress.show(loadProgress(p))
		}
	})
	progress.end()
	report.Version, report.Settings = c.build.Version, l.settings(&config, len(items))
	if strings.HasPrefix(l.Protocol, "oip") {
		report.Counts.Cached = nil // The protocol does not say.
	}
	met := report.Judge(objectives)
	if baseline != nil {
		report.Compare(baseline)
	}
	if err := l.write(c, report); err != nil {
		return err
	}
	switch {
	case c.ctx.Err() != nil:
		return interrupted
	case !met:
		return &failure{code: ExitMissed, message: "missed: " + missed(report)}
	}
	return nil
}

// bars reads what the run is to be measured against, before it costs time.
func (l *loadCmd) bars() (objectives []loadgen.Objective, baseline *loadgen.Report, err error) {
	if l.SLO != "" {
		if objectives, err = loadgen.ParseObjectives(l.SLO); err != nil {
			return nil, nil, usagef("--slo: %s", err)
		}
	}
	if l.Baseline == "" {
		return objectives, nil, nil
	}
	text, err := os.ReadFile(l.Baseline)
	if err != nil {
		return nil, nil, usagef("--baseline: %s", err)
	}
	baseline = &loadgen.Report{}
	if err := json.Unmarshal(text, baseline); err != nil || baseline.Loop == "" {
		return nil, nil, usagef("--baseline: %s is no report: expected a file that --save or --json of `clipper load` wrote", l.Baseline)
	}
	return objectives, baseline, nil
}

// items reads the file, if there is one, and its times.
func (l *loadCmd) items(c *client, config *loadgen.Config) ([]workload.Item, error) {
	if l.File == "" {
		return nil, nil
	}
	in := c.Stdin
	if l.File != "-" {
		f, err := os.Open(l.File)
		if err != nil {
			return nil, usagef("--file: %s", err)
		}
		defer f.Close() //nolint:errcheck // It is only read.
		in = f
	}
	items, timed, err := workload.Read(in)
	if err != nil {
		return nil, usagef("--file: %s: %s", l.File, err)
	}
	if l.Feedback > 0 {
		for i := range items {
			if items[i].Truth == nil {
				return nil, usagef(`--feedback: query %d of %s has no "truth"`, i+1, l.File)
			}
		}
	}
	if !l.Replay {
		return items, nil
	}
	if !timed {
		return nil, usagef(`--replay: the lines of %s have no "at"`, l.File)
	}
	config.WarmUp = 0
	for i := range items {
		config.Times = append(config.Times, time.Duration(float64(items[i].At)/l.Speed))
	}
	return items, nil
}

// connect returns a client of the protocol.
func (l *loadCmd) connect(c *client) (target.Client, error) {
	if l.overHTTP() {
		h := target.HTTP{Address: l.HTTPAddress, Connections: l.Connections, Headers: map[string]string{"User-Agent": "clipper/" + c.build.Version}}
		key, err := c.credential()
		if err != nil {
			return nil, err
		}
		if key != "" {
			h.Headers["Authorization"] = "Bearer " + string(key)
		}
		if c.Secure.Enabled() {
			if h.TLS, err = c.Secure.Config(); err != nil {
				return nil, usagef("%s", err)
			}
		}
		if l.Protocol == "rest" {
			return target.NewREST(h, l.Target), nil
		}
		return target.NewOIPREST(h, l.Target, l.Version, l.Protocol == "oip-binary"), nil
	}
	n := l.Connections
	if n == 0 {
		n = loadConnections
	}
	conns := make([]grpc.ClientConnInterface, n)
	for i := range conns {
		conn, err := c.queries()
		if err != nil {
			return nil, err
		}
		conns[i] = conn
	}
	all := target.NewConns(conns...)
	switch l.Protocol {
	case "stream":
		return target.NewStream(all, l.Target), nil
	case "oip-grpc":
		return target.NewOIPGRPC(all, l.Target, l.Version), nil
	}
	return target.NewGRPC(all, l.Target), nil
}

// sender returns what sends, after a first query that says what is wrong before it is wrong a thousand times.
func (l *loadCmd) sender(c *client, to target.Client, items []workload.Item) (*workload.Sender, error) {
	o := workload.Options{Params: target.Params{Priority: l.Priority, Timeout: l.Timeout}, Contexts: l.Contexts, Seed: l.Seed}
	ctx, cancel := context.WithTimeout(c.ctx, l.Timeout+callTimeout)
	defer cancel()
	var sender *workload.Sender
	if items != nil {
		var err error
		if strings.HasPrefix(l.Protocol, "oip") {
			if _, err := to.Signature(ctx); err != nil {
				return nil, l.refused(c, "the metadata of "+l.Target, err)
			}
		}
		if sender, err = workload.NewSender(to, items, o); err != nil {
			return nil, usagef("--file: %s: %s", l.File, err)
		}
	} else {
		specs, err := to.Signature(ctx)
		if err != nil {
			return nil, l.refused(c, "the metadata of "+l.Target, err)
		}
		if len(specs) == 0 {
			return nil, fmt.Errorf("the server does not say what %s takes, so that no inputs can be made up: give them with --file", l.Target)
		}
		if sender, err = workload.NewMadeUp(to, specs, l.Distinct, o); err != nil {
			return nil, err
		}
	}
	if _, err := sender.Query(0)(ctx); err != nil {
		return nil, l.refused(c, "the first query", err)
	}
	return sender, nil
}

// refused returns the error of what comes before the load.
func (l *loadCmd) refused(c *client, what string, err error) error {
	if c.ctx.Err() != nil {
		return interrupted
	}
	f := (*loadgen.Failure)(nil)
	if !errors.As(err, &f) {
		return fmt.Errorf("%s: %w", what, err)
	}
	flag, address := "address", l.Address
	if l.overHTTP() {
		flag, address = "http-address", l.HTTPAddress
	}
	code := ExitFailed
	switch f.Reason {
	case "UNAVAILABLE", "DEADLINE_EXCEEDED":
		return &failure{code: ExitUnreachable, message: fmt.Sprintf("%s failed: cannot reach %s (%s): is --%s right, and do the --tls flags fit?", what, address, cause(f.Message), flag)}
	case "APPLICATION_NOT_FOUND", "MODEL_NOT_FOUND", "VERSION_NOT_FOUND", "NOT_FOUND":
		code = ExitNotFound
	case "UNIMPLEMENTED":
		return &failure{code: ExitUnreachable, message: fmt.Sprintf("%s failed: %s does not serve this: --%s or --protocol must be another", what, address, flag)}
	}
	return &failure{code: code, message: fmt.Sprintf("%s failed: %s (%s)", what, f.Message, f.Reason)}
}

// settings are what was asked, in words.
func (l *loadCmd) settings(config *loadgen.Config, inputs int) []loadgen.Setting {
	var s []loadgen.Setting
	add := func(name, value string) { s = append(s, loadgen.Setting{Name: name, Value: value}) }
	name, address := l.Target, l.Address
	if l.Version != "" {
		name += ":" + l.Version
	}
	if l.overHTTP() {
		address = l.HTTPAddress
	}
	add("target", name)
	add("protocol", l.Protocol)
	add("address", address)
	switch {
	case l.Concurrency > 0:
		add("load", fmt.Sprintf("closed loop, %d callers, %s", l.Concurrency, l.Duration))
	case l.Replay:
		add("load", fmt.Sprintf("replay at %g times the speed", l.Speed))
	default:
		stages := make([]string, len(config.Stages))
		for i, stage := range config.Stages {
			stages[i] = stage.String()
		}
		add("load", fmt.Sprintf("open loop, %s queries a second, %s", strings.Join(stages, ","), l.Arrivals))
	}
	add("warm-up", config.WarmUp.String())
	switch {
	case inputs > 0:
		add("inputs", fmt.Sprintf("%d from %s", inputs, l.File))
	case l.Distinct == 0:
		add("inputs", "made up, another one for each query")
	default:
		add("inputs", fmt.Sprintf("%d made up", l.Distinct))
	}
	optional := func(name string, set bool, value string) {
		if set {
			add(name, value)
		}
	}
	optional("connections", l.Connections > 0, strconv.Itoa(l.Connections))
	optional("max in flight", l.MaxInFlight != 10_000, strconv.Itoa(l.MaxInFlight))
	optional("timeout", l.Timeout > 0, l.Timeout.String())
	optional("priority", l.Priority > 0, strconv.Itoa(int(l.Priority)))
	optional("contexts", l.Contexts > 0, strconv.Itoa(l.Contexts))
	optional("feedback", l.Feedback > 0, fmt.Sprintf("for %g of the answers, after %s", l.Feedback, l.FeedbackDelay))
	optional("TLS", l.Secure.Enabled(), "on")
	add("seed", strconv.FormatUint(l.Seed, 10))
	return s
}

func (l *loadCmd) write(c *client, report *loadgen.Report) error {
	if l.Save != "" {
		text, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return fmt.Errorf("--save: %w", err)
		}
		if err := os.WriteFile(l.Save, append(text, '\n'), 0o666); err != nil { //nolint:gosec // As the user's umask says.
			return fmt.Errorf("--save: %w", err)
		}
	}
	if l.HTML != "" {
		text, err := page.Render(report)
		if err != nil {
			return fmt.Errorf("--html: %w", err)
		}
		if err := os.WriteFile(l.HTML, text, 0o666); err != nil { //nolint:gosec // As the user's umask says.
			return fmt.Errorf("--html: %w", err)
		}
	}
	if c.JSON {
		return c.writeJSON(report)
	}
	return c.showLoad(report)
}

func missed(report *loadgen.Report) string {
	var all []string
	for _, o := range report.Objectives {
		if !o.Met {
			all = append(all, fmt.Sprintf("%s is %s, the bar %s", o.Name, o.Measured, o.Bar))
		}
	}
	return strings.Join(all, "; ")
}
