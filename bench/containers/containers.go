// SPDX-License-Identifier: Apache-2.0

// Package containers measures what serving a model in a container costs, beside the framework itself.
package containers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "containers",
	Summary: "throughput and latency of every container by batch size, beside the bare framework",
	Run:     layer.Run(run),
}

const (
	// QuickVariable is what makes windows so short, when it is set, that only the experiment itself is tried.
	QuickVariable = "CLIPPER_BENCH_QUICK"
	// OnlyVariable names the entries to measure, separated by semicolons; all by default.
	OnlyVariable = "CLIPPER_BENCH_CONTAINERS"

	// heavy is the time of a batch from which the limit of overhead holds, and full the rows.
	heavy       = time.Millisecond
	full        = 64
	maxOverhead = 5
)

// entry is a model of an adapter: models/SCRIPT makes it, and times the bare call, in the adapter's own environment.
type entry struct {
	name, adapter, script string
	// sizes are the batches, in rows.
	sizes []int
	// data is what the script needs of the folder with data, if anything.
	data string
}

var entries = []entry{
	{"sklearn, kernel SVM", "sklearn", "model_sklearn_svm.py", []int{1, 8, 64, 512}, ""},
	{"sklearn, forest", "sklearn", "model_sklearn_forest.py", []int{1, 8, 64, 512, 4096}, ""},
	{"xgboost", "xgboost", "model_xgboost.py", []int{1, 8, 64, 512, 4096}, ""},
	{"lightgbm", "lightgbm", "model_lightgbm.py", []int{1, 8, 64, 512, 4096}, ""},
	{"onnx", "onnx", "model_onnx.py", []int{1, 8, 64, 512}, ""},
	{"caffe", "caffe", "model_caffe.py", []int{1, 8, 64, 512}, "caffe/lenet_deploy.prototxt"},
	{"caffe in C++", "caffe-cpp", "model_caffe.py", []int{1, 8, 64, 512}, "caffe/lenet_deploy.prototxt"},
	{"spark", "spark", "model_spark.py", []int{1, 64, 512}, ""},
	{"closure", "closure", "model_closure.py", []int{1, 8, 64, 512}, ""},
	{"onnx in C++", "onnx-cpp", "model_onnx.py", []int{1, 8, 64, 512}, ""},
	{"pytorch", "pytorch", "model_pytorch.py", []int{1, 8, 64, 512}, ""},
	{"jax", "jax", "model_jax.py", []int{1, 8, 64, 512}, ""},
	{"huggingface", "huggingface", "model_huggingface.py", []int{1, 8, 64}, ""},
	{"htk", "htk", "model_htk.py", []int{1, 8, 64}, "htk/net.slf"},
	{"tensorflow", "tensorflow", "model_tensorflow.py", []int{1, 8, 64, 512}, ""},
	{"tensorflow in C++", "tensorflow-cpp", "model_tensorflow_cpp.py", []int{1, 8, 64, 512}, ""},
}

// closer is the overhead in % that the containers of some adapters may have instead of maxOverhead.
var closer = map[string]float64{"tensorflow-cpp": 3}

// noop is a container that computes nothing, and what it must reach.
type noop struct {
	name string
	// program returns what to run, or why it cannot be.
	program func(ctx context.Context, b *bench) ([]string, error)
	// rows is the least number of rows in a second at full batches, latency the longest time of a batch of one in ms.
	rows, latency float64
}

var noops = []noop{
	{"noop in Go", func(_ context.Context, b *bench) ([]string, error) { return []string{b.Noop}, nil }, 1e6, 0.1},
	{"noop in Python", pythonNoop, 150e3, 0.3},
	{"noop in C++", cppNoop, 1e6, 0.1},
}

const (
	noopRows   = 512
	noopFloats = 10
)

// bench is one run.
type bench struct {
	system.Binaries
	root, folder string
	log          io.Writer
	rounds       int
	window       time.Duration
	only         []string
	result       *experiment.Result
}

// threads keeps OpenMP, BLAS and TensorFlow to one core: the other is for the runtime and for who asks. What takes a thread
// for each processor that it finds, like ONNX Runtime, is loaded on one, see [oneCore].
var threads = []string{"OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "MKL_NUM_THREADS=1", "TF_NUM_INTRAOP_THREADS=1", "TF_NUM_INTEROP_THREADS=1", "PYTHONUNBUFFERED=1"}

func run(ctx context.Context, binaries system.Binaries, log io.Writer) (*experiment.Result, error) {
	root, err := system.Root(ctx)
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "clipper-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	b := &bench{Binaries: binaries, root: root, folder: folder, log: log, rounds: 5, window: 2 * time.Second}
	if os.Getenv(QuickVariable) != "" {
		b.rounds, b.window = 1, 100*time.Millisecond
	}
	if only := os.Getenv(OnlyVariable); only != "" {
		b.only = strings.Split(only, ";")
	}
	b.result = &experiment.Result{
		Load: fmt.Sprintf("the same batch again and again, %d rounds of %v each: the framework's own call in a process of its own, then the container with two batches under way, then with one; medians. Each framework finds one processor when it loads the model, and so takes one thread",
			b.rounds, b.window),
		Columns: []string{"container", "rows", "bare ms", "bare rows/s", "rows/s", "overhead %", "p50 ms", "p99 ms", "note"},
	}
	for _, e := range entries {
		if err := b.attempt(ctx, e.name, func(ctx context.Context, folder string) error { return b.adapter(ctx, folder, e) }); err != nil {
			return nil, err
		}
	}
	for _, n := range noops {
		if err := b.attempt(ctx, n.name, func(ctx context.Context, folder string) error { return b.noop(ctx, folder, n) }); err != nil {
			return nil, err
		}
	}
	return b.result, nil
}

// errUnavailable is why a container cannot be measured here.
var errUnavailable = errors.New("not measured")

// attempt measures one container, and says so in the table when it is not available.
func (b *bench) attempt(ctx context.Context, name string, measure func(ctx context.Context, folder string) error) error {
	if b.only != nil && !slices.Contains(b.only, name) {
		return nil
	}
	folder, err := os.MkdirTemp(b.folder, "")
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(b.log, name)
	err = measure(ctx, folder)
	if errors.Is(err, errUnavailable) {
		_, _ = fmt.Fprintf(b.log, "%s: %v\n", name, err)
		b.row(name, "-", "-", "-", "-", "-", "-", "-", err.Error())
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (b *bench) row(cells ...any) { b.result.Rows = append(b.result.Rows, cells) }

// adapter measures an adapter beside its framework, round by round, so that what else happens on the machine meets both.
func (b *bench) adapter(ctx context.Context, folder string, e entry) error {
	home := filepath.Join("containerrpc", "adapters", e.adapter)
	python, err := b.python(ctx, e.adapter, filepath.Join(home, "requirements.txt"))
	if err != nil {
		return err
	}
	env := threads
	if e.data != "" {
		file, err := experiment.Data(b.root, e.data)
		if err != nil {
			return fmt.Errorf("%w: %w", errUnavailable, err)
		}
		env = append(slices.Clone(threads), "CLIPPER_DATA="+filepath.Dir(filepath.Dir(file)))
	}
	bare, err := startBare(ctx, b.log, env, append(oneCore(), python, filepath.Join(b.root, "bench", "containers", "models", e.script), folder)...)
	if err != nil {
		return err
	}
	defer bare.stop()
	program := []string{python, filepath.Join(b.root, home, "adapter.py")}
	if _, err := os.Stat(filepath.Join(b.root, home, "CMakeLists.txt")); err == nil {
		built, err := b.output(ctx, "cpp-adapter.sh", e.adapter)
		if err != nil {
			return fmt.Errorf("%w: it cannot be built: %w", errUnavailable, err)
		}
		program = []string{built}
	}
	s, err := start(ctx, folder, append(append(slices.Clone(threads), bare.Env...), "CLIPPER_MODEL_PATH="+bare.Path), append(oneCore(), program...)...)
	if err != nil {
		return err
	}
	defer s.stop()
	for _, pid := range []int{bare.cmd.Process.Pid, s.process.ID()} {
		if err := freeCores(pid); err != nil {
			return err
		}
	}
	worst, reached := 0.0, false
	for _, rows := range e.sizes {
		batch, err := bare.batch(rows)
		if err != nil {
			return err
		}
		if err := b.warm(bare, s, batch); err != nil {
			return err
		}
		var own, served, overhead, p50, p99 []float64
		for range b.rounds {
			times, err := bare.time(rows, b.window)
			if err != nil {
				return err
			}
			perSecond, _, err := s.drive(batch, 2, b.window)
			if err != nil {
				return err
			}
			_, latencies, err := s.drive(batch, 1, b.window)
			if err != nil {
				return err
			}
			var total time.Duration
			for _, t := range times {
				total += t
			}
			mean := total.Seconds() / float64(len(times))
			own, served = append(own, mean), append(served, perSecond)
			overhead = append(overhead, 100*(1/(perSecond*mean)-1))
			p50, p99 = append(p50, quantile(latencies, 0.5)), append(p99, quantile(latencies, 0.99))
		}
		mean, over := experiment.Median(own), experiment.Median(overhead)
		b.row(e.name, rows, 1e3*mean, float64(rows)/mean, float64(rows)*experiment.Median(served), over, experiment.Median(p50), experiment.Median(p99), "")
		if rows >= full && mean >= heavy.Seconds() {
			if !reached || over > worst {
				worst = over
			}
			reached = true
		}
	}
	if reached {
		limit, known := closer[e.adapter]
		if !known {
			limit = maxOverhead
		}
		b.result.Bars = append(b.result.Bars, experiment.AtMost(e.name+": overhead, batches of 64 and more that take 1 ms", worst, "%", limit))
	}
	return nil
}

// warm lets both sides see a batch of this size before it counts.
func (b *bench) warm(bare *bare, s *served, batch *clipperv1.PredictRequest) error {
	if _, err := bare.time(int(batch.Rows), b.window/10); err != nil {
		return err
	}
	_, _, err := s.drive(batch, 2, b.window/10)
	return err
}

func (b *bench) noop(ctx context.Context, folder string, n noop) error {
	program, err := n.program(ctx, b)
	if err != nil {
		return err
	}
	s, err := start(ctx, folder, threads, program...)
	if err != nil {
		return err
	}
	defer s.stop()
	var full, one []float64
	for _, rows := range []int{1, 8, 64, noopRows} {
		batch := &clipperv1.PredictRequest{Rows: uint32(rows), Inputs: []*clipperv1.BatchTensor{{
			DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{noopFloats}, Data: make([]byte, rows*noopFloats*4),
		}}}
		if _, _, err := s.drive(batch, 2, b.window/10); err != nil {
			return err
		}
		var served, p50, p99 []float64
		for range b.rounds {
			perSecond, _, err := s.drive(batch, 2, b.window)
			if err != nil {
				return err
			}
			_, latencies, err := s.drive(batch, 1, b.window)
			if err != nil {
				return err
			}
			served, p50, p99 = append(served, float64(rows)*perSecond), append(p50, quantile(latencies, 0.5)), append(p99, quantile(latencies, 0.99))
		}
		b.row(n.name, rows, "-", "-", experiment.Median(served), "-", experiment.Median(p50), experiment.Median(p99), "")
		switch rows {
		case 1:
			one = p50
		case noopRows:
			full = served
		}
	}
	b.result.Bars = append(b.result.Bars,
		experiment.AtLeast(fmt.Sprintf("%s: rows/s at batches of %d", n.name, noopRows), experiment.Median(full), "/s", n.rows),
		experiment.AtMost(n.name+": a batch of one, p50", experiment.Median(one), "ms", n.latency))
	return nil
}

// quantile returns a quantile of times in milliseconds; there is one at least.
func quantile(times []time.Duration, q float64) float64 {
	slices.Sort(times)
	return times[min(int(q*float64(len(times))), len(times)-1)].Seconds() * 1e3
}

// python makes the environment in which tools/test-adapters.sh tests an adapter, and returns its interpreter.
func (b *bench) python(ctx context.Context, name string, more ...string) (string, error) {
	for _, file := range more {
		if _, err := os.Stat(filepath.Join(b.root, file)); err != nil {
			return "", fmt.Errorf("%w: there is no %s", errUnavailable, file)
		}
	}
	runtime := filepath.Join("containerrpc", "python")
	args := append([]string{name, filepath.Join(runtime, "requirements.txt"), filepath.Join(runtime, "requirements-test.txt")}, more...)
	interpreter, err := b.output(ctx, "venv.sh", args...)
	if err != nil {
		return "", fmt.Errorf("%w: its Python environment cannot be made: %w", errUnavailable, err)
	}
	return interpreter, nil
}

// output runs one of the scripts in tools and returns what it prints: a path.
func (b *bench) output(ctx context.Context, tool string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.root, "tools", tool), args...)
	cmd.Dir, cmd.Stderr = b.root, b.log
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

func pythonNoop(ctx context.Context, b *bench) ([]string, error) {
	python, err := b.python(ctx, "python")
	return []string{python, filepath.Join(b.root, "bench", "containers", "models", "noop.py")}, err
}

// cppNoop builds containerrpc/cpp/noop with the installed compiler and gRPC, once: it takes a while.
func cppNoop(ctx context.Context, b *bench) ([]string, error) {
	source, build := filepath.Join(b.root, "containerrpc", "cpp"), filepath.Join(b.root, ".cache", "bench-cpp")
	if _, err := os.Stat(filepath.Join(source, "noop")); err != nil {
		return nil, fmt.Errorf("%w: there is no containerrpc/cpp/noop", errUnavailable)
	}
	for _, args := range [][]string{
		{"-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_TESTING=OFF"},
		{"--build", build, "--parallel", "2", "--target", "clipper-noop"},
	} {
		if out, err := exec.CommandContext(ctx, "cmake", args...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w: cmake: %w\n%s", errUnavailable, err, out)
		}
	}
	return []string{filepath.Join(build, "clipper-noop")}, nil
}
