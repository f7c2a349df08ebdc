// SPDX-License-Identifier: Apache-2.0

package clipper_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const program = `// Command ask asks an application.
package main

import (
	"context"
	"fmt"
	"log"

	clipper "github.com/clipper-serving/clipper/sdk/go"
)

func main() {
	client, err := clipper.New(clipper.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	answer, err := client.Query(context.Background(), &clipper.QueryRequest{
		Application: "digits", Inputs: clipper.Input(clipper.NewTensor([]float64{0.1, 0.2})),
	})
	if err != nil {
		log.Fatal(err)
	}
	label, err := clipper.Value[int64](answer.Outputs[0])
	fmt.Println(label, err)
}
`

// TestOutside uses the module as somebody else's program does: from outside the workspace. It is vetted and
// built, and nothing comes along but gRPC and protobuf.
func TestOutside(t *testing.T) {
	dir := t.TempDir()
	here, err := filepath.Abs(".")
	check(t, err)
	stubs, err := filepath.Abs(filepath.Join("..", "..", "gen", "go"))
	check(t, err)
	sums, err := os.ReadFile("go.sum")
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600))
	run := func(args ...string) string {
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("mod", "init", "example.com/ask")
	run("mod", "edit", "-go=1.26.0",
		"-require=github.com/clipper-serving/clipper/sdk/go@v0.0.0", "-replace=github.com/clipper-serving/clipper/sdk/go="+here,
		"-replace=github.com/clipper-serving/clipper/gen/go="+stubs)
	run("vet", ".")
	run("build", "-o", "ask", ".")
	modules := strings.Fields(run("list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "."))
	slices.Sort(modules)
	want := []string{
		"example.com/ask", "github.com/clipper-serving/clipper/gen/go", "github.com/clipper-serving/clipper/sdk/go",
		"golang.org/x/net", "golang.org/x/sys", "golang.org/x/text", "google.golang.org/genproto/googleapis/rpc",
		"google.golang.org/grpc", "google.golang.org/protobuf",
	}
	if got := slices.Compact(modules); !slices.Equal(got, want) {
		t.Errorf("the program has the modules\n%v\nwant\n%v", got, want)
	}
}
