// SPDX-License-Identifier: Apache-2.0

// Package launcher defines how replicas of models are started and stopped. Each
// way of doing it is a package of its own below this one, and each passes the suite
// in launchertest.
//
// A launcher knows nothing about predictions: it starts a program that will serve
// the container RPC at an address, tells when the program has ended, and stops it.
package launcher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// The environment of every replica, whichever launcher starts it.
const (
	// EnvAddress is where the replica serves: "unix:/path" or "host:port".
	EnvAddress = "CLIPPER_CONTAINER_ADDRESS"
	// EnvModelName is the model's name.
	EnvModelName = "CLIPPER_MODEL_NAME"
	// EnvModelVersion is the model's version.
	EnvModelVersion = "CLIPPER_MODEL_VERSION"
	// EnvModelPath is the saved model's path. Only the replicas of adapters have it.
	EnvModelPath = "CLIPPER_MODEL_PATH"
	// EnvExitWithParent is "1" when the end of standard input means that the launcher
	// has died and the replica must exit.
	EnvExitWithParent = "CLIPPER_EXIT_WITH_PARENT"
)

// ExitNever is the exit code of a replica that will never work as it was
// described, for instance because its model cannot be read: EX_CONFIG of
// sysexits.h. Any other code but zero means that another try may succeed.
const ExitNever = 78

// ErrUnsupported says that a launcher is not made for this kind of container.
var ErrUnsupported = errors.New("this launcher does not run such containers")

// FieldError says which field of a container keeps it from being started. Its text
// is fit to be shown to a caller.
type FieldError struct {
	// Field is the path from the container: "adapter.model_path".
	Field string
	// Message says what is wrong and what to do about it.
	Message string
}

// Error implements error.
func (e *FieldError) Error() string { return e.Message }

// Fieldf returns a FieldError.
func Fieldf(field, format string, args ...any) error {
	return &FieldError{Field: field, Message: fmt.Sprintf(format, args...)}
}

// Spec says what to start.
type Spec struct {
	// Model and Version name what the replica serves.
	Model, Version string
	// Replica tells apart the replicas of a version. It is used again for the successor
	// of a replica that has ended.
	Replica string
	// Container is what to start.
	Container *clipperv1.Container
}

// ImageName returns the name of the image that a container is to be run from, for launchers of images: its own,
// or that of its framework's adapter, in which {framework} stands for the framework. Errors are as for Check.
func ImageName(c *clipperv1.Container, adapterImage string) (string, error) {
	var name, field string
	switch source := c.GetSource().(type) {
	case *clipperv1.Container_Image:
		name, field = source.Image.GetReference(), "image.reference"
	case *clipperv1.Container_Adapter:
		name, field = strings.ReplaceAll(adapterImage, "{framework}", strings.ToLower(source.Adapter.GetFramework())), "adapter.framework"
	default:
		return "", ErrUnsupported
	}
	if _, err := reference.ParseNormalizedNamed(name); err != nil {
		return "", Fieldf(field, "%q is no name of an image: want [REGISTRY/]NAME[:TAG]", name)
	}
	return name, nil
}

// ErrNoLog says that there is no log of the replica, or of that run.
var ErrNoLog = errors.New("there is no such log")

// MaxLine is the most bytes of a line of a log; what is longer is several lines.
const MaxLine = 16 << 10

// LogQuery says which lines of a replica's log are wanted.
type LogQuery struct {
	// Model, Version and Replica name it as in Spec.
	Model, Version, Replica string
	// Previous asks for the run before the last one instead. It is not together with Follow.
	Previous bool
	// Since leaves out lines up to this time.
	Since time.Time
	// Tail leaves out all but that many of the last lines that are there.
	Tail int
	// Follow goes on with what is written until the run ends.
	Follow bool
}

// Pass passes on those of the lines, which are all that there are, that are wanted.
func (q LogQuery) Pass(lines []Line, yield func(Line) error) error {
	last := Tail{Max: q.Tail}
	for _, line := range lines {
		if line.Time.After(q.Since) {
			last.Add(line)
		}
	}
	for _, line := range last.Lines() {
		if err := yield(line); err != nil {
			return err
		}
	}
	return nil
}

// Line is a line of a log. Within a log, times increase.
type Line struct {
	Time time.Time
	Text string
}

// Tail is the last lines that were added. Its zero value keeps none.
type Tail struct {
	// Max is how many are kept.
	Max  int
	ring []Line
	next int
}

// Add adds a line.
func (t *Tail) Add(l Line) {
	switch {
	case len(t.ring) < t.Max:
		t.ring = append(t.ring, l)
	case t.Max > 0:
		t.ring[t.next] = l
		t.next = (t.next + 1) % t.Max
	}
}

// Lines returns them, oldest first.
func (t *Tail) Lines() []Line { return append(slices.Clone(t.ring[t.next:]), t.ring[:t.next]...) }

// Launcher starts replicas. It is safe for concurrent use.
type Launcher interface {
	// Check returns nil when a container like this can be started here, as far as that
	// can be known without starting it; [ErrUnsupported] when it is another
	// launcher's business; and otherwise a [FieldError].
	Check(c *clipperv1.Container) error

	// Start starts a replica and returns once it runs; it need not serve yet. ctx
	// bounds the start only. Errors are as for Check, or say why the start failed, in
	// words that are fit to be shown.
	Start(ctx context.Context, spec Spec) (Instance, error)

	// Logs passes lines of a replica's log to yield, oldest first, and returns when there are no more: with
	// Follow, when the run has ended. Logs of replicas that have ended are kept for a while, and for one that
	// was started again those of the run before. It returns [ErrNoLog] when there is none, what yield returns,
	// or ctx's error.
	Logs(ctx context.Context, q LogQuery, yield func(Line) error) error

	// Close stops what still runs, at once, and releases what the launcher holds.
	// Nothing can be started afterwards.
	Close() error
}

// Instance is a replica that was started. It is safe for concurrent use.
type Instance interface {
	// Address is where the replica serves: "host:port" or "unix:/path".
	Address() string

	// Done is closed when the replica has ended and everything that it started is gone.
	Done() <-chan struct{}

	// Exit says how the replica ended. It is the zero Exit before Done is closed.
	Exit() Exit

	// Logs returns at most n of the last lines that the replica wrote, oldest first. Those of standard output
	// and of standard error are each in order; between the two, a launcher may not know it.
	Logs(n int) []string

	// Stop asks the replica to finish what it has, then ends it: when the launcher's
	// grace period or ctx is over, whichever is first. It returns when Done is
	// closed, and may be called any number of times.
	Stop(ctx context.Context)
}

// Exit is how a replica ended.
type Exit struct {
	// Code is the exit code, or -1 when it was ended by a signal.
	Code int
	// Signal is the signal's name when one ended it: "killed".
	Signal string
	// OutOfMemory is true when the kernel ended it, or a process of it, since it used more memory than it may.
	OutOfMemory bool
	// MemoryLimit is what it may use, in bytes, when OutOfMemory is true; 0 when it had no limit of its own, and
	// the machine had too little.
	MemoryLimit uint64
	// Cause is why it ended, in words that follow "the replica", where the launcher knows more than the code says.
	Cause string
}

// Never reports whether the replica said that it will never work.
func (e Exit) Never() bool { return e.Code == ExitNever }

// String says it in words that follow "the replica".
func (e Exit) String() string {
	switch {
	case e.OutOfMemory && e.MemoryLimit > 0:
		return fmt.Sprintf("was killed by the kernel: out of memory, limit %d MiB", e.MemoryLimit>>20)
	case e.OutOfMemory:
		return "was killed by the kernel: the machine is out of memory"
	}
	if e.Cause != "" {
		return e.Cause
	}
	if e.Signal != "" {
		return "was ended by the signal " + e.Signal
	}
	return fmt.Sprintf("exited with code %d", e.Code)
}
