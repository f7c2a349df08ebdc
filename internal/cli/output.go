// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// writeJSON writes one JSON document: on several lines for a person, on one for a program.
// Messages have the form of the REST API.
func (c *client) writeJSON(v any) error {
	var text []byte
	var err error
	if m, ok := v.(proto.Message); ok {
		text, err = marshal(m)
	} else {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		err = e.Encode(v)
		text = b.Bytes()
	}
	var out bytes.Buffer
	switch {
	case err != nil:
	case c.Pretty:
		err = json.Indent(&out, bytes.TrimSpace(text), "", "  ")
	default: // Also for messages, whose spaces protojson varies.
		err = json.Compact(&out, text)
	}
	if err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	out.WriteByte('\n')
	_, err = c.Stdout.Write(out.Bytes())
	return err
}

// marshal returns a message in the form of the REST API, with spaces as protojson likes.
func marshal(m proto.Message) ([]byte, error) {
	return protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m)
}

// table is text in aligned columns.
type table struct {
	header []string // May be absent.
	rows   [][]string
	// state is the column that is coloured by the state in it; 0, the column of names, is none.
	state int
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// colors are the ANSI colours of states.
var colors = map[string]string{
	"ready": "32", "serving": "32", "ok": "32",
	"starting": "33", "degraded": "33", "draining": "33", "deleting": "33", "deadline": "33", "overloaded": "33",
	"failed": "31", "not serving": "31", "unreachable": "31", "no replica": "31", "not found": "31", "unavailable": "31",
}

// write writes the table. An empty cell becomes a dash.
func (t *table) write(w io.Writer, colored bool) error {
	rows := t.rows
	if t.header != nil {
		rows = append([][]string{t.header}, rows...)
	}
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 1)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for r, row := range rows {
		for i, cell := range row {
			if cell == "" {
				cell = "-"
			}
			padding := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2)
			if color := colors[cell]; colored && i > 0 && i == t.state && color != "" {
				cell = "\x1b[" + color + "m" + cell + "\x1b[0m"
			} else if colored && r == 0 && t.header != nil {
				cell = "\x1b[1m" + cell + "\x1b[0m"
			}
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(padding)
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (c *client) writeTable(t *table) error { return t.write(c.Stdout, c.Pretty) }

// blankLine separates two tables; what follows it meets the error that it may meet.
func (c *client) blankLine() { _, _ = fmt.Fprintln(c.Stdout) }

// enum returns the value of an enum as words: MODEL_STATE_NO_REPLICA is "no replica".
func enum(value fmt.Stringer, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(value.String(), prefix)), "_", " ")
}

// age returns how long ago something was, in its largest unit.
func age(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	d := max(time.Since(t.AsTime()), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// duration returns a duration without units that are zero: "1h", not "1h0m0s".
func duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// progress shows on standard error how something that takes long goes on: on a terminal as a line
// that moves, elsewhere as a line for each change. With --json it shows nothing, so that standard
// error holds an error's document alone.
type progress struct {
	t     Terminal
	quiet bool
	since time.Time
	frame int
	last  string
}

func (c *client) progress() *progress {
	return &progress{t: c.Terminal, quiet: c.JSON, since: time.Now()}
}

var spinner = []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")

// show shows a line.
func (p *progress) show(line string) {
	switch {
	case p.quiet:
		return
	case p.t.Animated:
		p.frame++
		_, _ = fmt.Fprintf(p.t.Stderr, "\r\x1b[K%c %s %s", spinner[p.frame%len(spinner)], line, time.Since(p.since).Round(time.Second))
	case line != p.last:
		_, _ = fmt.Fprintln(p.t.Stderr, line)
	}
	p.last = line
}

// end removes the line that moves.
func (p *progress) end() {
	if p.t.Animated && p.last != "" {
		_, _ = fmt.Fprint(p.t.Stderr, "\r\x1b[K")
	}
}
