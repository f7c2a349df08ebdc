// SPDX-License-Identifier: Apache-2.0

package batching

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/system"
)

// Real compares the controllers with scikit-learn models.
var Real = experiment.Experiment{
	Name:    "sklearn",
	Summary: "the same for real scikit-learn models of 784 floats, served by the Python runtime",
	Run:     runReal,
}

const floats = 784

var (
	realModels      = []string{"linear_svm", "log_reg", "rf", "kernel_svm"}
	realControllers = []string{"none", "aimd", "slo"}
)

func runReal(ctx context.Context, log io.Writer) (*experiment.Result, error) {
	root, err := system.Root(ctx)
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "clipper-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	python, err := train(ctx, root, folder, log)
	if err != nil {
		return nil, err
	}
	r := &experiment.Result{
		Load: fmt.Sprintf("Poisson arrivals beside the layer, %d floats a query, one replica of one thread; the container computes on the cores that everything else runs on; the capacity is the highest rate at which %.0f %% of the queries are answered in %v of their arrival",
			floats, 100*layer.Target, layer.Objective),
		Columns: []string{"model", "controller", "capacity/s", "p50 ms", "p99 ms", "rows/batch", "over none", "in time % at 90 %", "paper/s", "paper over none"},
		Plot:    &experiment.Plot{Title: "Capacity at 99 % in 20 ms, scikit-learn", Y: "queries/s", Names: realModels, LogY: true},
	}
	series := make([]experiment.Series, len(realControllers))
	for _, model := range realModels {
		all, err := compare(ctx, layer.Config{
			Containers: [][]string{{python, filepath.Join(root, "containerrpc", "adapters", "sklearn", "adapter.py")}},
			Environment: []string{
				"CLIPPER_MODEL_PATH=" + filepath.Join(folder, model+".joblib"),
				"OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "PYTHONUNBUFFERED=1",
			},
			Floats: floats,
		}, model, log, realControllers...)
		if err != nil {
			return nil, err
		}
		for i, c := range realControllers {
			m := all[c]
			series[i].Name = c
			series[i].Y = append(series[i].Y, m.capacity)
			paper, paperRatio := any("-"), any("-")
			if qps, ok := PaperQPS[model][c]; ok {
				paper, paperRatio = qps, qps/PaperQPS[model]["none"]
			}
			r.Rows = append(r.Rows, []any{
				model, c, m.capacity, ms(m.at.P50), ms(m.at.P99), m.rows, m.capacity / all["none"].capacity, 100 * m.fraction, paper, paperRatio,
			})
		}
	}
	r.Plot.Series = series
	return r, nil
}

// train makes the Python environment and the models, and returns the interpreter.
func train(ctx context.Context, root, folder string, log io.Writer) (python string, err error) {
	run := func(program string, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Dir, cmd.Stderr = root, log
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("%s: %w", filepath.Base(program), err)
		}
		return strings.TrimSpace(string(out)), nil
	}
	python, err = run(filepath.Join(root, "tools", "venv.sh"), "bench",
		"containerrpc/python/requirements.txt", "containerrpc/adapters/sklearn/requirements.txt")
	if err != nil {
		return "", fmt.Errorf("make the Python environment: %w", err)
	}
	out, err := run(python, filepath.Join(root, "bench", "batching", "train.py"), folder)
	if err != nil {
		return "", fmt.Errorf("train the models: %w", err)
	}
	_, _ = fmt.Fprintln(log, out)
	return python, nil
}
