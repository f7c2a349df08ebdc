// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

type logsCmd struct {
	Model string `arg:"" complete:"model" help:"The model, or MODEL:VERSION; else the current version."`

	adminOptions

	Replica    string `placeholder:"ID" help:"Only this replica."`
	Follow     bool   `short:"f" help:"Go on with what is written from now on, also when a replica is started again."`
	Tail       uint32 `default:"100" placeholder:"N" help:"How many of the last lines of each replica, at most 10000 (default: ${default})."`
	Since      string `placeholder:"TIME" help:"Only later lines: a duration before now (10m), or a time (2026-03-01T12:00:00Z)."`
	Previous   bool   `help:"The run before the last one: how a replica that was started again ended."`
	Timestamps bool   `help:"Write the time before each line."`
}

func (logsCmd) Help() string {
	return `Each line has its replica in front, unless --replica names one. With --json, each line is a JSON object.

Examples:

    clipper logs digits
    clipper logs digits:2 --replica 0 --previous
    clipper logs digits --follow --since 10m`
}

func (l *logsCmd) Run(c *client) error {
	request := &clipperv1.ReadLogsRequest{Replica: l.Replica, Follow: l.Follow, Tail: &l.Tail, Previous: l.Previous}
	request.Model, request.Version, _ = strings.Cut(l.Model, ":")
	if l.Since != "" {
		since, err := parseSince(l.Since, time.Now())
		if err != nil {
			return err
		}
		request.Since = timestamppb.New(since)
	}
	service, err := c.models()
	if err != nil {
		return err
	}
	// A stream has no timeout of its own: one that follows may be silent for long.
	failed := func(err error) error {
		return &callError{flag: "admin-address", address: c.adminAddress, err: err}
	}
	stream, err := service.ReadLogs(c.ctx, request)
	if err != nil {
		return failed(err)
	}
	w := &logWriter{c: c, times: l.Timestamps, prefix: l.Replica == ""}
	for {
		line, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			if len(w.sources) == 0 && !c.JSON {
				_, _ = fmt.Fprintln(c.Stderr, "No lines.")
			}
			return nil
		case err != nil && l.Follow && c.ctx.Err() != nil:
			return nil //nolint:nilerr // Who follows ends it so.
		case err != nil:
			return failed(err)
		}
		if err := w.write(line); err != nil {
			return err
		}
	}
}

// parseSince reads a time, or how long it was ago.
func parseSince(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, usagef("--since: want a duration such as 10m, or a time such as 2026-03-01T12:00:00Z, not %q", text)
	}
	return at, nil
}

// logWriter writes lines.
type logWriter struct {
	c             *client
	times, prefix bool
	sources       []string // as they have come
}

// sourceOf names the replica of a line.
func sourceOf(line *clipperv1.ReadLogsResponse) string {
	if line.GetInstance() != "" {
		return line.GetReplica() + "@" + line.GetInstance()
	}
	return line.GetReplica()
}

// replicaColors tell replicas apart.
var replicaColors = []string{"36", "35", "33", "32", "34"}

func (w *logWriter) write(line *clipperv1.ReadLogsResponse) error {
	source := sourceOf(line)
	if !slices.Contains(w.sources, source) {
		w.sources = append(w.sources, source)
	}
	if w.c.JSON {
		// For programs, also on a terminal: one line is one object.
		c := *w.c
		c.Pretty = false
		return c.writeJSON(line)
	}
	var b strings.Builder
	switch {
	case w.prefix && w.c.Pretty:
		fmt.Fprintf(&b, "\x1b[%sm%s |\x1b[0m ", replicaColors[slices.Index(w.sources, source)%len(replicaColors)], source)
	case w.prefix:
		b.WriteString(source + " | ")
	}
	if w.times {
		b.WriteString(line.GetTime().AsTime().Format("2006-01-02T15:04:05.000Z") + " ")
	}
	b.WriteString(printable(line.GetText()))
	b.WriteByte('\n')
	_, err := io.WriteString(w.c.Stdout, b.String())
	return err
}

// printable takes out what would move the cursor or change the terminal: a model's output is not trusted.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, text)
}
