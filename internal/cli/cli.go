// SPDX-License-Identifier: Apache-2.0

// Package cli is the command line: the commands of a client, and the way in
// which every command is parsed, run and reported. The commands that run
// services are added by main as a kong option.
//
// What a command found goes to standard output, as a table or, with --json, as
// one JSON document. Progress and errors go to standard error.
package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/clipper-serving/clipper/internal/certs"
	"github.com/clipper-serving/clipper/internal/config"
	"github.com/clipper-serving/clipper/internal/telemetry"
)

// Exit codes of every command.
const (
	ExitOK          = 0   // Done.
	ExitFailed      = 1   // The operation failed or was refused.
	ExitUsage       = 2   // The command line is wrong.
	ExitNotFound    = 3   // What was named does not exist.
	ExitUnreachable = 4   // A server, or a service behind it, cannot be reached.
	ExitDeploy      = 5   // A model was deployed or scaled and did not become ready.
	ExitInterrupted = 130 // The user interrupted it.
)

// Terminal is where a command reads and writes.
type Terminal struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Pretty says that a person reads standard output: colour, and JSON with line breaks.
	Pretty bool
	// Animated says that standard error is a terminal, on which a line can be overwritten.
	Animated bool
}

// System returns the terminal of the process. There is no colour when NO_COLOR is set (see
// https://no-color.org) or TERM is "dumb".
func System() Terminal {
	dumb := os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb"
	return Terminal{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Pretty:   !dumb && term.IsTerminal(int(os.Stdout.Fd())),
		Animated: os.Getenv("TERM") != "dumb" && term.IsTerminal(int(os.Stderr.Fd())),
	}
}

// root is the command line without the services. None of it belongs in a configuration file.
type root struct {
	Model      modelCommands     `cmd:"" config:"-" group:"client" help:"Deploy and manage models."`
	App        appCommands       `cmd:"" config:"-" group:"client" help:"Create and manage applications."`
	Key        keyCommands       `cmd:"" config:"-" group:"client" help:"Create and manage API keys."`
	Query      queryCmd          `cmd:"" config:"-" group:"client" help:"Ask an application."`
	Feedback   feedbackCmd       `cmd:"" config:"-" group:"client" help:"Tell an application what was true."`
	Status     statusCmd         `cmd:"" config:"-" group:"client" help:"Show services, models and applications."`
	Logs       logsCmd           `cmd:"" config:"-" group:"client" help:"Show, and follow, what the replicas of a model write."`
	Top        topCmd            `cmd:"" config:"-" group:"client" help:"Watch models and applications live: queues, batches, latencies, weights."`
	Profile    profileCmd        `cmd:"" config:"-" group:"client" help:"Measure a model's latency by batch size, and say what a load needs."`
	Container  containerCommands `cmd:"" config:"-" group:"other" help:"Write and check model containers."`
	Image      imageCommands     `cmd:"" config:"-" group:"other" help:"Make container images of models."`
	Health     healthCmd         `cmd:"" config:"-" group:"other" help:"Ask whether a service on this machine lives, or is ready."`
	Version    versionCmd        `cmd:"" config:"-" group:"other" help:"Show the version of this program."`
	Completion completionCmd     `cmd:"" config:"-" group:"other" help:"Write a completion script for a shell."`
	Complete   completeCmd       `cmd:"" config:"-" name:"__complete" hidden:"" passthrough:"" help:"List what may come next; completion scripts call it."`
}

// options are the flags of every client command.
type options struct {
	Timeout time.Duration `env:"CLIPPER_TIMEOUT" placeholder:"DURATION" help:"How long to wait: for the answer to a query (default: the application's objective), for a model to become ready (default: 5m), for anything else (default: 10s)."`
	JSON    bool          `name:"json" help:"Write one JSON document."`
	APIKey  string        `name:"api-key" env:"CLIPPER_API_KEY" placeholder:"KEY" help:"API key or token to call with. On a command line, others on the machine can see it."`
	KeyFile string        `name:"api-key-file" env:"CLIPPER_API_KEY_FILE" type:"path" placeholder:"FILE" help:"File with the API key or token to call with."`
	Secure  certs.Client  `embed:"" envprefix:"CLIPPER_"`
}

// queryOptions are the flags of commands that ask.
type queryOptions struct {
	Address string `env:"CLIPPER_ADDRESS" default:"127.0.0.1:1347" placeholder:"HOST:PORT" help:"Where queries and feedback go (gRPC)."`
	options
}

func (o *queryOptions) apply(c *client) { c.address, c.options = o.Address, o.options }

// adminOptions are the flags of commands that administer.
type adminOptions struct {
	AdminAddress string `env:"CLIPPER_ADMIN_ADDRESS" default:"127.0.0.1:1348" placeholder:"HOST:PORT" help:"Where administration goes (gRPC)."`
	options
}

func (o *adminOptions) apply(c *client) { c.adminAddress, c.options = o.AdminAddress, o.options }

// applier is a node of the command line with flags that the client follows.
type applier interface{ apply(*client) }

// exit is how kong's Exit, which its callers expect not to return, comes back to Run.
type exit int

// Run parses args, runs the command they name and returns the exit code. The options add commands:
// their flags are set by CLIPPER_... variables and the configuration file, as package config says.
func Run(ctx context.Context, t Terminal, build telemetry.Build, args []string, more ...kong.Option) (code int) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case exit:
			code = int(r)
		default:
			panic(r)
		}
	}()
	var r root
	parser, err := kong.New(&r, append([]kong.Option{
		kong.Name("clipper"),
		kong.Description("Clipper serves predictions: it stands between applications and machine-learned models."),
		kong.Writers(t.Stdout, t.Stderr),
		kong.Exit(func(code int) { panic(exit(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.ExplicitGroups([]kong.Group{
			{Key: "services", Title: "Services:"},
			{Key: "client", Title: "Client:"},
			{Key: "other", Title: "Other:"},
		}),
		config.Environment("CLIPPER"),
	}, more...)...)
	if err != nil {
		return report(t, false, fmt.Errorf("command line: %w", err))
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if err != nil {
		return report(t, false, asUsage(err))
	}
	c := &client{Terminal: t, ctx: ctx, build: build, model: parser.Model, adminAddress: r.Model.AdminAddress}
	defer c.close()
	for node := command.Selected(); node != nil; node = node.Parent {
		if a, ok := node.Target.Addr().Interface().(applier); ok {
			a.apply(c)
		}
	}
	return report(t, c.JSON, command.Run(c))
}

// client is what the commands share.
type client struct {
	Terminal
	options
	address, adminAddress string

	ctx   context.Context
	build telemetry.Build
	model *kong.Application
	conns []io.Closer
}

// example returns the first example in a command's help.
func example(node *kong.Node) string {
	for line := range strings.Lines(node.Detail) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "clipper ") {
			return line
		}
	}
	return ""
}
