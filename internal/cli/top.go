// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	tea "charm.land/bubbletea/v2"
	"golang.org/x/term"

	"github.com/clipper-serving/clipper/internal/top"
)

type topCmd struct {
	adminOptions

	Metrics  []string      `env:"CLIPPER_METRICS" default:"http://127.0.0.1:1338/metrics" placeholder:"URL" help:"Where the metrics of each process are; those of several are added up (default: ${default}, which has all of 'clipper up')."`
	Interval time.Duration `default:"2s" placeholder:"DURATION" help:"Time between two readings, over which rates are measured (default: ${default})."`
	Once     bool          `help:"Write what is to be seen once, as plain text, and end."`
}

func (topCmd) Help() string {
	return `Keys: q ends it, s and S sort the models by the next or previous column, r turns the order, the arrows scroll, and
p or the space bar stops the time. Without a terminal, or with --json, it writes a frame for each interval; with --json each is
an object on a line.

Examples:

    clipper top
    clipper top --once
    clipper top --metrics http://10.0.0.5:1338/metrics,http://10.0.0.6:1368/metrics`
}

func (t *topCmd) Run(c *client) error {
	if t.Interval < 100*time.Millisecond {
		return usagef("--interval: want at least 100ms, not %s", t.Interval)
	}
	models, err := c.models()
	if err != nil {
		return err
	}
	applications, err := c.applications()
	if err != nil {
		return err
	}
	key, err := c.credential()
	if err != nil {
		return err
	}
	web, _, err := webClient(c.Secure)
	if err != nil {
		return err
	}
	defer web.CloseIdleConnections()
	source := &top.Source{HTTP: web, Key: string(key), Models: models, Applications: applications, Metrics: t.Metrics}
	out, isFile := c.Stdout.(*os.File)
	if t.Once || c.JSON || !isFile || !term.IsTerminal(int(out.Fd())) || os.Getenv("TERM") == "dumb" {
		return t.write(c, source)
	}
	view := &topView{source: source, ctx: c.ctx, interval: t.Interval, colored: c.Pretty}
	program := tea.NewProgram(view, tea.WithContext(c.ctx), tea.WithInput(c.Stdin), tea.WithOutput(out), tea.WithoutSignalHandler())
	if _, err := program.Run(); err != nil && !errors.Is(err, tea.ErrProgramKilled) {
		return err
	}
	return view.fatal
}

// write writes frames one below the other: the first when there are rates.
func (t *topCmd) write(c *client, source *top.Source) error {
	if _, err := source.Read(c.ctx); err != nil {
		return err
	}
	tick := time.NewTicker(t.Interval)
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return nil
		case <-tick.C:
		}
		snapshot, err := source.Read(c.ctx)
		if err != nil {
			return err
		}
		if c.JSON {
			line := *c
			line.Pretty = line.Pretty && t.Once
			err = line.writeJSON(snapshot)
		} else {
			_, err = io.WriteString(c.Stdout, frame(snapshot, order{}, false)+map[bool]string{false: "\n"}[t.Once])
		}
		if err != nil || t.Once {
			return err
		}
	}
}

// topView is the live view: bubbletea's model. Bubbletea calls it from one goroutine, and its commands, of which one
// at a time reads, from others.
type topView struct {
	source   *top.Source
	ctx      context.Context //nolint:containedctx // of the command, for what bubbletea runs
	interval time.Duration
	colored  bool

	snapshot      *top.Snapshot
	problem       error // of the last reading; what was read before stays
	fatal         error // of the first
	order         order
	paused        bool
	offset        int
	width, height int
}

type (
	topTick struct{}
	topRead struct {
		snapshot *top.Snapshot
		err      error
	}
)

// Init implements tea.Model.
func (v *topView) Init() tea.Cmd { return v.read }

func (v *topView) read() tea.Msg {
	s, err := v.source.Read(v.ctx)
	return topRead{s, err}
}

// Update implements tea.Model.
func (v *topView) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		v.width, v.height = msg.Width, msg.Height
	case topRead:
		if msg.err != nil && v.snapshot == nil {
			v.fatal = msg.err
			return v, tea.Quit
		}
		if v.problem = msg.err; msg.err == nil && !v.paused {
			v.snapshot = msg.snapshot
		}
		wait := v.interval
		if v.snapshot != nil && v.snapshot.Seconds == 0 {
			wait = min(wait, 500*time.Millisecond) // Rates need two readings.
		}
		return v, tea.Tick(wait, func(time.Time) tea.Msg { return topTick{} })
	case topTick:
		return v, v.read
	case tea.KeyPressMsg:
		return v, v.key(msg.String())
	}
	return v, nil
}

func (v *topView) key(key string) tea.Cmd {
	switch key {
	case "q", "ctrl+c", "esc":
		return tea.Quit
	case "p", "space":
		v.paused = !v.paused
	case "s", "right":
		v.order.column = (v.order.column + 1) % len(modelColumns)
	case "S", "left":
		v.order.column = (v.order.column + len(modelColumns) - 1) % len(modelColumns)
	case "r":
		v.order.reversed = !v.order.reversed
	case "up", "k":
		v.offset--
	case "down", "j":
		v.offset++
	case "pgup":
		v.offset -= max(v.height-4, 1)
	case "pgdown":
		v.offset += max(v.height-4, 1)
	case "home":
		v.offset = 0
	}
	return nil
}
