// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

func (completionCmd) Help() string {
	return `Commands, flags, values, and the names of models and applications are completed.

Examples:

    clipper completion bash > ~/.local/share/bash-completion/completions/clipper
    clipper completion zsh > "${fpath[1]}/_clipper"
    clipper completion fish > ~/.config/fish/completions/clipper.fish`
}

// completionScripts ask `clipper __complete`, which knows the command line; a line of its output is
// a candidate, perhaps with a tab and what it means. When there is none, files are completed.
var completionScripts = map[string]string{
	"bash": `# bash completion of clipper
_clipper() {
  local line
  COMPREPLY=()
  while IFS= read -r line; do
    COMPREPLY+=("${line%%$'\t'*}")
  done < <("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o bashdefault -o default -F _clipper clipper
`,
	"zsh": `#compdef clipper
_clipper() {
  local line name
  local -a candidates
  while IFS= read -r line; do
    name=${${line%%$'\t'*}//:/\\:}
    if [[ $line == *$'\t'* ]]; then candidates+=("$name:${line#*$'\t'}"); else candidates+=("$name"); fi
  done < <("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
  if (( ${#candidates} )); then _describe clipper candidates; else _files; fi
}
if [[ ${funcstack[1]} == _clipper ]]; then _clipper "$@"; else compdef _clipper clipper; fi
`,
	"fish": `# fish completion of clipper
function __clipper_complete
  set -l words (commandline --tokenize --cut-at-cursor --current-process)
  set -l found ($words[1] __complete $words[2..] (commandline --current-token --cut-at-cursor) 2>/dev/null)
  if test (count $found) -gt 0
    printf '%s\n' $found
  else
    __fish_complete_path (commandline --current-token --cut-at-cursor)
  end
end
complete --command clipper --no-files --arguments '(__clipper_complete)'
`,
}

func (s completionCmd) Run(c *client) error {
	_, err := fmt.Fprint(c.Stdout, completionScripts[s.Shell])
	return err
}

type completeCmd struct {
	Words []string `arg:"" optional:"" help:"The words before the cursor; the last one is to be completed."`
}

// namesTimeout bounds the look at a server for a completion.
const namesTimeout = time.Second

func (m completeCmd) Run(c *client) error {
	words := slices.DeleteFunc(slices.Clone(m.Words), func(w string) bool { return w == "=" }) // Bash splits --flag=value.
	if len(words) == 0 {
		words = []string{""}
	}
	for _, candidate := range c.candidates(words[:len(words)-1], words[len(words)-1]) {
		if _, err := fmt.Fprintln(c.Stdout, candidate); err != nil {
			return err
		}
	}
	return nil
}

// candidates returns what the last word can become after those before it, each with a tab and its
// meaning where it has one.
func (c *client) candidates(before []string, last string) []string {
	node, positional := c.model.Node, 0
	var flag *kong.Flag // It waits for its value.
	for _, word := range before {
		switch {
		case word == "--":
			return nil
		case flag != nil:
			flag = nil
		case strings.HasPrefix(word, "-"):
			if found := findFlag(node, word); found != nil && !found.IsBool() {
				flag = found
			}
		default:
			if child := findChild(node, word); child != nil {
				node, positional = child, 0
			} else {
				positional++
			}
		}
	}
	name, value, joined := strings.Cut(last, "=")
	switch {
	case flag != nil:
		return matching(c.values(flag.Value), "", last)
	case joined && strings.HasPrefix(last, "-"):
		if flag := findFlag(node, name); flag != nil {
			return matching(c.values(flag.Value), name+"=", value)
		}
		return nil
	case strings.HasPrefix(last, "-"):
		var all []string
		for _, flag := range flags(node) {
			all = append(all, "--"+flag.Name+"\t"+flag.Help)
			if flag.Tag.Negatable != "" {
				all = append(all, "--no-"+flag.Name+"\tNot: "+flag.Help)
			}
		}
		return matching(all, "", last)
	case positional < len(node.Positional):
		return matching(c.values(node.Positional[positional]), "", last)
	}
	var all []string
	for _, child := range node.Children {
		if !child.Hidden {
			all = append(all, child.Name+"\t"+child.Help)
		}
	}
	return matching(all, "", last)
}

// flags returns the flags that may come after a command.
func flags(node *kong.Node) (all []*kong.Flag) {
	for _, group := range node.AllFlags(true) {
		all = append(all, group...)
	}
	return all
}

func findFlag(node *kong.Node, word string) *kong.Flag {
	for _, flag := range flags(node) {
		if "--"+flag.Name == word {
			return flag
		}
	}
	return nil
}

func findChild(node *kong.Node, word string) *kong.Node {
	for _, child := range node.Children {
		if child.Name == word {
			return child
		}
	}
	return nil
}

// values returns the values that a flag or argument can have, as far as they are known: those of
// its enum, or of the tag complete, which lists them or is "model" or "application".
func (c *client) values(v *kong.Value) (all []string) {
	switch tag := v.Tag.Get("complete"); tag {
	case "model", "application":
		return c.names(tag)
	case "":
		if v.Enum == "" {
			return nil
		}
		return v.EnumSlice()
	default:
		return strings.Split(tag, ",")
	}
}

// names asks the server for the models or applications; when it does not answer, there are none.
func (c *client) names(of string) (names []string) {
	c.Timeout = namesTimeout
	if of == "model" {
		models, _ := c.listModels()
		for _, m := range models {
			names = append(names, m.GetName())
		}
		return names
	}
	applications, _ := c.listApplications()
	for _, a := range applications {
		names = append(names, a.GetName())
	}
	return names
}

// matching returns the values that start with what is typed, after a prefix.
func matching(values []string, prefix, typed string) (matches []string) {
	for _, value := range values {
		if strings.HasPrefix(value, typed) && value != "" {
			matches = append(matches, prefix+value)
		}
	}
	return matches
}
