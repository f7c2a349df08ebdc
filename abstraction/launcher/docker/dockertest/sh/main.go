// SPDX-License-Identifier: Apache-2.0

// Command sh stands in for the shell of an image that has no other program: it writes the files that are named
// last on its command line, as pip says what it collects, and fails if one of them has the line no-such-package.
package main

import (
	"fmt"
	"os"
	"strings"
)

func main() {
	words := strings.Fields(os.Args[len(os.Args)-1])
	text, err := os.ReadFile(words[len(words)-1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		fmt.Println("Collecting", line)
		if line == "no-such-package" {
			fmt.Fprintln(os.Stderr, "\x1b[31mERROR: No matching distribution found for no-such-package\x1b[0m")
			os.Exit(1)
		}
	}
}
