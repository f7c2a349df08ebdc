// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/clipper-serving/clipper/containerrpc/check"
)

type containerCommands struct {
	Check containerCheck `cmd:"" help:"Check that a running container keeps the contract, and say what is wrong."`
}

type containerCheck struct {
	Address  string        `arg:"" help:"Where the container serves: unix:/path or host:port."`
	Sample   []string      `sep:"none" placeholder:"JSON" help:"An input that the model accepts, as JSON or @FILE; may be repeated. Default: inputs are made up from the signature."`
	Bad      string        `name:"bad-sample" placeholder:"JSON" help:"An input that fits the signature and that the model refuses, as JSON or @FILE."`
	DrainPID int           `name:"drain-pid" placeholder:"PID" help:"At the end, tell this process, which is the container's, to stop, and watch how it drains."`
	Timeout  time.Duration `default:"30s" placeholder:"DURATION" help:"The longest that an answer, and the loading of the model, may take. Default: ${default}."`
	JSON     bool          `name:"json" help:"Write one JSON document."`
}

func (containerCheck) Help() string {
	return `The exit code is 0 when no check failed. A warning is no failure.

Examples:

    clipper container check 127.0.0.1:7000
    clipper container check unix:/tmp/digits --sample '[0.0, 0.3, 0.9]' --sample @image.json
    clipper container check 127.0.0.1:7000 --drain-pid 4711 --json`
}

// checkReport is the JSON document of a check.
type checkReport struct {
	Address string         `json:"address"`
	Passed  bool           `json:"passed"`
	Checks  []check.Result `json:"checks"`
}

func (k *containerCheck) apply(c *client) { c.JSON = k.JSON }

func (k *containerCheck) Run(c *client) error {
	if k.Timeout <= 0 {
		return usagef("--timeout must be positive")
	}
	if k.DrainPID < 0 {
		return usagef("--drain-pid must be the number of a process")
	}
	o := check.Options{Timeout: k.Timeout, DrainPID: k.DrainPID}
	for _, sample := range k.Sample {
		text, err := c.readInput(sample)
		if err != nil {
			return err
		}
		o.Samples = append(o.Samples, text)
	}
	if k.Bad != "" {
		text, err := c.readInput(k.Bad)
		if err != nil {
			return err
		}
		o.Bad = text
	}
	report := checkReport{Address: k.Address}
	var writing error
	good, err := check.Run(c.ctx, k.Address, o, func(r check.Result) {
		report.Checks = append(report.Checks, r)
		if !c.JSON && writing == nil {
			writing = c.showCheck(r)
		}
	})
	if c.ctx.Err() != nil {
		return interrupted
	}
	if err != nil {
		return err
	}
	report.Passed = good
	if c.JSON {
		writing = c.writeJSON(report)
	}
	if writing != nil {
		return writing
	}
	if !good {
		return errors.New("the container does not keep the contract (docs/containers.md has it)")
	}
	return nil
}

// checkMarks are the mark and the ANSI colour of each status.
var checkMarks = map[check.Status]struct{ mark, color string }{
	check.Passed: {"✓", "32"}, check.Warned: {"!", "33"}, check.Skipped: {"-", "2"}, check.Failed: {"✗", "31"},
}

func (c *client) showCheck(r check.Result) error {
	m := checkMarks[r.Status]
	mark := m.mark
	if c.Pretty {
		mark = "\x1b[" + m.color + "m" + mark + "\x1b[0m"
	}
	line := mark + " " + r.Name
	if r.Message != "" {
		line += ": " + r.Message
	}
	_, err := fmt.Fprintln(c.Stdout, line)
	return err
}
