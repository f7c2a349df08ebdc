// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/clipper-serving/clipper/containerrpc/check"
	"github.com/clipper-serving/clipper/containerrpc/scaffold"
)

type containerCommands struct {
	New   containerNew   `cmd:"" help:"Write a new container: a program that works, its image, documentation and test."`
	Check containerCheck `cmd:"" help:"Check that a running container keeps the contract, and say what is wrong."`
}

type containerNew struct {
	Name      string `arg:"" help:"The container's name: lower-case letters, digits and dashes."`
	Lang      string `required:"" enum:"python,cpp,go" placeholder:"LANGUAGE" help:"What it is written in: ${enum}."`
	Directory string `placeholder:"DIR" help:"The folder to write, which is empty or not there. Default: NAME, in this directory."`
	Clipper   string `placeholder:"DIR" help:"The checkout of Clipper's source that it is built with. Default: the one that this directory or this program is in."`
}

func (containerNew) Help() string {
	return `The container serves a linear model, which you replace by yours. Its README.md says how it is built, tested and
served.

Examples:

    clipper container new --lang python churn
    clipper container new --lang go churn --directory models/churn --clipper ~/src/clipper`
}

func (k *containerNew) Run(c *client) error {
	if err := scaffold.CheckName(k.Name); err != nil {
		return usagef("%v", err)
	}
	if k.Directory == "" {
		k.Directory = k.Name
	}
	source, err := k.source()
	if err != nil {
		return err
	}
	names, err := scaffold.Write(k.Directory, scaffold.Container{Name: k.Name, Language: k.Lang, Source: source})
	if errors.Is(err, scaffold.ErrExists) {
		return fmt.Errorf("%w: name another folder with --directory", err)
	} else if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := fmt.Fprintln(c.Stdout, filepath.Join(k.Directory, name)); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(c.Stderr, "%s says how to build, test and serve it.\n", filepath.Join(k.Directory, "README.md"))
	return err
}

// source returns the checkout of Clipper: the one that is named, or else the first that is found; "" if none is.
func (k *containerNew) source() (string, error) {
	if k.Clipper != "" {
		source, err := absolute(k.Clipper)
		if err == nil && !scaffold.IsSource(source) {
			err = usagef("--clipper %s is no checkout of Clipper's source: there is no go.mod of its module in it", k.Clipper)
		}
		return source, err
	}
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	for _, folder := range []string{here, filepath.Dir(program)} {
		for ; ; folder = filepath.Dir(folder) {
			if scaffold.IsSource(folder) {
				return folder, nil
			}
			if folder == filepath.Dir(folder) {
				break
			}
		}
	}
	return "", nil
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
