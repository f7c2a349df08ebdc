// SPDX-License-Identifier: Apache-2.0

// Package config lets a setting be spelled once, as a field of a kong command
// line, and set in four places: on the command line, in the environment, in a
// YAML file, or by its default; the first of these that has it wins.
//
//	var cli struct {
//		Config   config.File   `help:"Configuration file (YAML)."`
//		Frontend frontend.Args `cmd:"" help:"Run the frontend."`
//		Up       up.Args       `cmd:"" config:"global" help:"Run everything."`
//	}
//	parser, err := kong.New(&cli, config.Environment("CLIPPER"))
//
// Every flag has one key: the names of its commands and its own name, joined by
// dashes. The flag --grpc-listen of the command frontend has the key
// frontend-grpc-listen. The environment variable is that key in upper case
// behind a prefix, CLIPPER_FRONTEND_GRPC_LISTEN. In the file, any dash may be a
// level of nesting instead, so that these two say the same:
//
//	frontend-grpc-listen: 127.0.0.1:1337
//
//	frontend:
//	  grpc:
//	    listen: 127.0.0.1:1337
//
// A command with the tag config:"global" leaves its name out of the keys of its
// flags, and a flag with that tag leaves out the names of all its commands. Thus
// a command that runs several services, with their flags under their names as
// prefixes, shares keys (and so a file) with the commands that run one each. A
// command or flag with the tag config:"-" has no keys; such a flag is set on the
// command line and in the environment variable it names, if it names one.
//
// A key in the file that no flag has is an error that names it and its line.
package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// Environment gives every flag that names no environment variable of its own
// the one that belongs to its key. A flag with the tag env:"-" gets none.
func Environment(prefix string) kong.Option {
	return kong.PostBuild(func(k *kong.Kong) error {
		eachFlag(k.Model.Node, "", func(key string, flag *kong.Flag) {
			switch {
			case len(flag.Envs) == 0:
				flag.Envs = []string{prefix + "_" + strings.ToUpper(strings.ReplaceAll(key, "-", "_"))}
			case flag.Envs[0] == "-":
				flag.Envs = nil
			}
			flag.Tag.Envs = flag.Envs
		})
		return nil
	})
}

// eachFlag calls visit for each flag at or below node that can be configured.
func eachFlag(node *kong.Node, prefix string, visit func(key string, flag *kong.Flag)) {
	if node.Type == kong.CommandNode {
		switch node.Tag.Get("config") {
		case "-":
			return
		case "global":
		default:
			prefix += node.Name + "-"
		}
	}
	for _, flag := range node.Flags {
		switch {
		case flag.Name == "help", flag.Tag.Get("config") == "-":
		case flag.Tag.Get("config") == "global":
			visit(flag.Name, flag)
		default:
			visit(prefix+flag.Name, flag)
		}
	}
	for _, child := range node.Children {
		eachFlag(child, prefix, visit)
	}
}

// File is the flag that names a YAML file of settings. Its path itself cannot be
// set in the file.
type File string

// BeforeResolve reads the file. Kong calls it once the command line is parsed.
func (File) BeforeResolve(k *kong.Kong, ctx *kong.Context, trace *kong.Path) error {
	path, _ := ctx.FlagValue(trace.Flag).(File)
	if path == "" {
		return nil
	}
	f, err := os.Open(kong.ExpandPath(string(path)))
	if err != nil {
		return fmt.Errorf("open configuration: %w", err)
	}
	defer f.Close() //nolint:errcheck // It is only read.
	values, err := read(f, k.Model)
	if err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	ctx.AddResolver(values)
	return nil
}

var fileType = reflect.TypeFor[File]()

// values are settings from a file.
type values map[*kong.Flag]string

var _ kong.Resolver = values(nil)

// Validate has nothing left to do: unknown keys are refused when the file is read.
func (values) Validate(*kong.Application) error { return nil }

// Resolve gives the file's value, unless the environment has one: kong lets a
// resolver win over the environment, but what is nearer to the process should.
func (v values) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, env := range flag.Envs {
		if _, ok := os.LookupEnv(env); ok {
			return nil, nil
		}
	}
	if value, ok := v[flag]; ok {
		return value, nil
	}
	return nil, nil
}

// read matches the settings in a YAML document with the flags of app. Several
// flags may have the same key.
func read(r io.Reader, app *kong.Application) (values, error) {
	var document yaml.Node
	switch err := yaml.NewDecoder(r).Decode(&document); {
	case errors.Is(err, io.EOF): // An empty file sets nothing.
		return nil, nil
	case err != nil:
		return nil, err
	}
	entries := map[string]*yaml.Node{}
	if err := flatten(document.Content[0], "", entries); err != nil {
		return nil, err
	}
	result := values{}
	known := map[string]bool{}
	var wrong error
	eachFlag(app.Node, "", func(key string, flag *kong.Flag) {
		node, ok := entries[key]
		if !ok || flag.Target.Type() == fileType {
			return
		}
		known[key] = true
		value, err := scalar(key, node, flag)
		if err != nil {
			wrong = errors.Join(wrong, err)
		}
		result[flag] = value
	})
	for key, node := range entries {
		if !known[key] {
			wrong = errors.Join(wrong, fmt.Errorf("line %d: unknown key %q", node.Line, key))
		}
	}
	return result, wrong
}

// flatten collects what is not a mapping under the dash-joined path that leads to it.
func flatten(node *yaml.Node, path string, into map[string]*yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		if path == "" {
			return fmt.Errorf("line %d: want keys and values", node.Line)
		}
		if _, ok := into[path]; ok {
			return fmt.Errorf("line %d: key %q is set twice", node.Line, path)
		}
		into[path] = node
		return nil
	}
	for i := 0; i < len(node.Content); i += 2 {
		key := node.Content[i].Value
		if path != "" {
			key = path + "-" + key
		}
		if err := flatten(node.Content[i+1], key, into); err != nil {
			return err
		}
	}
	return nil
}

// scalar is a value as it would be written on the command line. It is the text
// of the file, unread by YAML, so that a flag means the same in both places.
func scalar(key string, node *yaml.Node, flag *kong.Flag) (string, error) {
	switch {
	case node.Kind == yaml.ScalarNode && node.Tag != "!!null":
		return node.Value, nil
	case node.Kind == yaml.SequenceNode && flag.IsSlice():
		list := make([]string, len(node.Content))
		for i, item := range node.Content {
			if item.Kind != yaml.ScalarNode {
				return "", fmt.Errorf("line %d: %s: want a list of plain values", item.Line, key)
			}
			list[i] = item.Value
		}
		return kong.JoinEscaped(list, flag.Tag.Sep), nil
	case flag.IsSlice():
		return "", fmt.Errorf("line %d: %s: want a value or a list", node.Line, key)
	default:
		return "", fmt.Errorf("line %d: %s: want one value", node.Line, key)
	}
}
