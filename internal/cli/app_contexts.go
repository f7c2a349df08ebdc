// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// maxContextsPage is the most contexts that a server lists at once.
const maxContextsPage = 1000

type appContexts struct {
	Name   string `arg:"" complete:"application" help:"The application."`
	Prefix string `placeholder:"TEXT" help:"Only contexts whose name begins so."`
	Limit  int    `default:"100" placeholder:"N" help:"The most contexts to list. Default: 100."`
}

func (appContexts) Help() string {
	return "Examples:\n\n    clipper app contexts digits\n    clipper app contexts digits --prefix user- --limit 1000"
}

func (a appContexts) Run(c *client) error {
	if a.Limit < 1 {
		return usagef("--limit: %d is not at least 1", a.Limit)
	}
	service, err := c.applications()
	if err != nil {
		return err
	}
	found := &clipperv1.ListContextsResponse{}
	for request := (&clipperv1.ListContextsRequest{Application: a.Name, Prefix: a.Prefix}); ; {
		request.PageSize = uint32(min(a.Limit-len(found.Contexts), maxContextsPage))
		page, err := service.ListContexts(c.ctx, request)
		if err != nil {
			return err
		}
		found.Contexts = append(found.Contexts, page.GetContexts()...)
		found.NextPageToken, request.PageToken = page.GetNextPageToken(), page.GetNextPageToken()
		if request.PageToken == "" || len(found.Contexts) >= a.Limit {
			break
		}
	}
	if c.JSON {
		return c.writeJSON(found)
	}
	if len(found.Contexts) == 0 {
		if a.Prefix != "" {
			_, err := fmt.Fprintf(c.Stdout, "No contexts whose name begins with %q.\n", a.Prefix)
			return err
		}
		_, err := fmt.Fprintln(c.Stdout, "No contexts. One begins with the first feedback to a query that has a context.")
		return err
	}
	t := &table{header: []string{"CONTEXT", "FEEDBACKS", "EXPIRES"}}
	for _, x := range found.Contexts {
		expires := ""
		if x.GetExpireTime() != nil {
			expires = x.GetExpireTime().AsTime().Format(time.RFC3339)
		}
		t.add(x.GetContext(), number(x.GetObservations()), expires)
	}
	if err := c.writeTable(t); err != nil || found.NextPageToken == "" {
		return err
	}
	_, err = fmt.Fprintln(c.Stdout, "\nThere are more: raise --limit, or narrow the list with --prefix.")
	return err
}

type appExport struct {
	Name    string `arg:"" complete:"application" help:"The application."`
	Context string `placeholder:"NAME" help:"Only this user, session or device. Default: the shared state and all contexts."`
	Output  string `short:"o" placeholder:"FILE" help:"Where to write. Default: standard output."`
}

func (appExport) Help() string {
	return `One JSON object is written on each line: the shared state first, then each context, sorted by name. --timeout is how long to
wait for the next one.

Examples:

    clipper app export digits -o digits.jsonl
    clipper app export digits --context user-7`
}

func (a appExport) Run(c *client) error {
	if a.Output == "" || a.Output == "-" {
		_, err := a.export(c, c.Stdout)
		return err
	}
	// A file that is there is whole.
	file, err := os.CreateTemp(filepath.Dir(a.Output), "."+filepath.Base(a.Output)+"-*")
	if err != nil {
		// The name of the file that could not be made says nothing.
		return fmt.Errorf("write the export to %s: %w", a.Output, errors.Unwrap(err))
	}
	n, err := a.export(c, file)
	if closed := file.Close(); err == nil && closed != nil {
		err = fmt.Errorf("write the export: %w", closed)
	}
	if err == nil {
		if err = os.Rename(file.Name(), a.Output); err != nil {
			err = fmt.Errorf("write the export: %w", err)
		}
	}
	if err != nil {
		_ = os.Remove(file.Name()) // What counts is why it is not whole.
		return err
	}
	if c.JSON {
		return c.writeJSON(map[string]int{"exported": n})
	}
	_, err = fmt.Fprintf(c.Stdout, "Exported %d states to %s.\n", n, a.Output)
	return err
}

// export writes the states and returns how many there were.
func (a appExport) export(c *client, w io.Writer) (n int, err error) {
	service, err := c.applications()
	if err != nil {
		return 0, err
	}
	wait := c.Timeout
	if wait == 0 {
		wait = callTimeout
	}
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	late := time.AfterFunc(wait, func() { cancel(context.DeadlineExceeded) })
	defer late.Stop()
	failed := func(err error) error {
		if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			err = status.FromContextError(context.DeadlineExceeded).Err()
		}
		return &callError{flag: "admin-address", address: c.adminAddress, waited: wait, err: err}
	}
	stream, err := service.ExportSelectionState(ctx, &clipperv1.ExportSelectionStateRequest{Application: a.Name, Context: a.Context})
	if err != nil {
		return 0, failed(err)
	}
	out := bufio.NewWriter(w)
	for {
		state, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if err := out.Flush(); err != nil {
				return n, fmt.Errorf("write the export: %w", err)
			}
			return n, nil
		}
		if err != nil {
			_ = out.Flush() // The call's error is the first.
			return n, failed(err)
		}
		late.Reset(wait)
		if err := writeLine(out, state); err != nil {
			return n, fmt.Errorf("write the export: %w", err)
		}
		n++
	}
}

// writeLine writes a message as one line of JSON, also for a person.
func writeLine(w io.Writer, m proto.Message) error {
	text, err := marshal(m)
	if err != nil {
		return err
	}
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil {
		return err
	}
	line.WriteByte('\n')
	_, err = w.Write(line.Bytes())
	return err
}

type appReset struct {
	Name    string `arg:"" complete:"application" help:"The application."`
	Context string `placeholder:"NAME" xor:"what" required:"" help:"Forget what was learned of this user, session or device."`
	All     bool   `xor:"what" required:"" help:"Forget everything: the shared state and all contexts."`
}

func (appReset) Help() string {
	return `Feedback for an answer from before still counts, from nothing. "clipper app export" keeps a copy.

Examples:

    clipper app reset digits --context user-7
    clipper app reset digits --all`
}

func (a appReset) Run(c *client) error {
	service, err := c.applications()
	if err != nil {
		return err
	}
	if _, err := service.ResetSelectionState(c.ctx, &clipperv1.ResetSelectionStateRequest{Application: a.Name, Context: a.Context}); err != nil {
		return err
	}
	if c.JSON {
		return c.writeJSON(map[string]string{"reset": a.Name, "context": a.Context})
	}
	what := "everything"
	if a.Context != "" {
		what = "the context " + a.Context
	}
	_, err = fmt.Fprintf(c.Stdout, "Reset %s of %s.\n", what, a.Name)
	return err
}
