// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/config"
)

type grpcArgs struct {
	Listen  string        `default:"${listen}" help:"Address."`
	Timeout time.Duration `default:"10s" help:"Timeout."`
	Max     config.Bytes  `default:"16MiB" help:"Limit."`
}

type serviceArgs struct {
	GRPC   grpcArgs `embed:"" prefix:"grpc-"`
	Models []string `help:"Models."`
	Cache  bool     `default:"true" negatable:"" help:"Cache."`
}

type cli struct {
	Config   config.File `help:"Configuration file."`
	Address  string      `env:"CLIPPER_SERVER" help:"Has a variable of its own."`
	Secret   string      `env:"-" help:"Has no variable."`
	Frontend struct {
		serviceArgs
		Level string `config:"global" default:"info" help:"Log level."`
	} `cmd:"" set:"listen=127.0.0.1:1"`
	Up struct {
		Frontend serviceArgs `embed:"" prefix:"frontend-" set:"listen=127.0.0.1:1"`
		Selector serviceArgs `embed:"" prefix:"selector-" set:"listen=127.0.0.1:2"`
		Level    string      `config:"global" default:"info" help:"Log level."`
	} `cmd:"" config:"global"`
}

func parse(t *testing.T, file string, args ...string) (*cli, error) {
	t.Helper()
	var c cli
	parser, err := kong.New(&c, config.Environment("CLIPPER"))
	require.NoError(t, err)
	if file != "" {
		path := filepath.Join(t.TempDir(), "clipper.yaml")
		require.NoError(t, os.WriteFile(path, []byte(file), 0o600))
		args = append(args, "--config", path)
	}
	_, err = parser.Parse(args)
	return &c, err
}

func TestPrecedence(t *testing.T) {
	const file = "frontend: {grpc: {listen: file:1, timeout: 1s}}"
	tests := []struct {
		name string
		file string
		env  string
		args []string
		want string
	}{
		{"default", "", "", nil, "127.0.0.1:1"},
		{"file beats default", file, "", nil, "file:1"},
		{"environment beats file", file, "env:1", nil, "env:1"},
		{"flag beats environment", file, "env:1", []string{"--grpc-listen=flag:1"}, "flag:1"},
		{"environment beats default", "", "env:1", nil, "env:1"},
		{"flag beats file", file, "", []string{"--grpc-listen=flag:1"}, "flag:1"},
		{"a default given by flag beats file", file, "", []string{"--grpc-listen=127.0.0.1:1"}, "127.0.0.1:1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.env != "" {
				t.Setenv("CLIPPER_FRONTEND_GRPC_LISTEN", tt.env)
			}
			c, err := parse(t, tt.file, append([]string{"frontend"}, tt.args...)...)
			require.NoError(t, err)
			require.Equal(t, tt.want, c.Frontend.GRPC.Listen)
			if tt.file != "" {
				require.Equal(t, time.Second, c.Frontend.GRPC.Timeout, "the rest of the file holds")
			}
		})
	}
}

func TestOneFileForSeveralCommands(t *testing.T) {
	const file = `
level: debug
frontend:
  grpc-max: 1KiB
  models: [a, "b,c"]
  cache: false
selector:
  grpc:
    listen: 127.0.0.1:7
`
	c, err := parse(t, file, "frontend")
	require.NoError(t, err)
	require.Equal(t, "debug", c.Frontend.Level)
	require.Equal(t, config.KiB, c.Frontend.GRPC.Max)
	require.Equal(t, []string{"a", "b,c"}, c.Frontend.Models)
	require.False(t, c.Frontend.Cache)

	c, err = parse(t, file, "up")
	require.NoError(t, err)
	require.Equal(t, "debug", c.Up.Level)
	require.Equal(t, config.KiB, c.Up.Frontend.GRPC.Max)
	require.Equal(t, []string{"a", "b,c"}, c.Up.Frontend.Models)
	require.Equal(t, "127.0.0.1:1", c.Up.Frontend.GRPC.Listen)
	require.Equal(t, "127.0.0.1:7", c.Up.Selector.GRPC.Listen)
	require.Equal(t, 16*config.MiB, c.Up.Selector.GRPC.Max)
	require.True(t, c.Up.Selector.Cache)
}

func TestEnvironment(t *testing.T) {
	t.Setenv("CLIPPER_LEVEL", "warn")
	t.Setenv("CLIPPER_SELECTOR_GRPC_LISTEN", "env:2")
	t.Setenv("CLIPPER_SELECTOR_MODELS", "a,b")
	t.Setenv("CLIPPER_SERVER", "env:3")
	t.Setenv("CLIPPER_ADDRESS", "not me")
	t.Setenv("CLIPPER_SECRET", "not me")
	c, err := parse(t, "", "up")
	require.NoError(t, err)
	require.Equal(t, "warn", c.Up.Level)
	require.Equal(t, "env:2", c.Up.Selector.GRPC.Listen)
	require.Equal(t, []string{"a", "b"}, c.Up.Selector.Models)
	require.Equal(t, "env:3", c.Address)
	require.Empty(t, c.Secret)
}

func TestFile_namedByTheEnvironment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clipper.yaml")
	require.NoError(t, os.WriteFile(path, []byte("level: error"), 0o600))
	t.Setenv("CLIPPER_CONFIG", path)
	c, err := parse(t, "", "up")
	require.NoError(t, err)
	require.Equal(t, "error", c.Up.Level)
}

func TestFile_refused(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"unknown key", "level: info\nfrontend:\n  grpc:\n    listne: x", `line 4: unknown key "frontend-grpc-listne"`},
		{"key of no command", "grpc-listen: x", `line 1: unknown key "grpc-listen"`},
		{"the file itself", "config: x", `unknown key "config"`},
		{"unknown section", "backend: {a: 1}", `unknown key "backend-a"`},
		{"twice", "frontend-grpc-listen: a\nfrontend: {grpc-listen: b}", `line 2: key "frontend-grpc-listen" is set twice`},
		{"empty value", "level:", "line 1: level: want one value"},
		{"list for one value", "level: [a]", "line 1: level: want one value"},
		{"nested list", "frontend: {models: [[a]]}", "line 1: frontend-models: want a list of plain values"},
		{"not a mapping", "- a", "line 1: want keys and values"},
		{"not YAML", "a: b: c", "yaml"},
		{"bad value", "frontend: {grpc: {timeout: fast}}", "fast"},
		{"bad amount", "frontend: {grpc: {max: 16MB}}", "16MB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse(t, tt.file, "frontend")
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestFile_absent(t *testing.T) {
	_, err := parse(t, "", "frontend", "--config", filepath.Join(t.TempDir(), "none.yaml"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestFile_empty(t *testing.T) {
	c, err := parse(t, "# nothing yet\n", "frontend")
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:1", c.Frontend.GRPC.Listen)
}

func TestBytes(t *testing.T) {
	tests := []struct {
		text string
		want config.Bytes
		back string
	}{
		{"0", 0, "0B"},
		{"1000", 1000, "1000B"},
		{"65536", 64 * config.KiB, "64KiB"},
		{"16MiB", 16 * config.MiB, "16MiB"},
		{"2 GiB", 2 * config.GiB, "2GiB"},
		{"1536KiB", 1536 * config.KiB, "1536KiB"},
		{"5B", 5, "5B"},
	}
	for _, tt := range tests {
		var b config.Bytes
		require.NoError(t, b.UnmarshalText([]byte(tt.text)))
		require.Equal(t, tt.want, b)
		require.Equal(t, tt.back, b.String())
	}
	for _, text := range []string{"", "-1", "1.5MiB", "16MB", "MiB", "9223372036854775808", "8589934592GiB", "1e3"} {
		var b config.Bytes
		require.Error(t, b.UnmarshalText([]byte(text)), text)
	}
}
