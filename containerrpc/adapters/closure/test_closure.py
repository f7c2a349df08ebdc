# SPDX-License-Identifier: Apache-2.0
"""Served predictions are the function's own, value for value."""

from __future__ import annotations

import importlib
import json
import threading
from pathlib import Path

import clipper
import cloudpickle
import numpy as np
import pytest
from clipper_proto.v1.model_container_service_pb2 import DescribeRequest

from clipper_container import RowError, tensors
from clipper_container.testing import ContainerProcess, deployed

ADAPTER = Path(__file__).with_name("adapter.py")
ROWS = np.random.default_rng(1).normal(size=(200, 10))


def serve(folder, path):
    return ContainerProcess(ADAPTER, folder, environment={"CLIPPER_MODEL_PATH": str(path)})


def scaled_by(weights):
    """Returns a closure that captures an array and calls a function of this module."""

    def predict(rows):
        if rows.shape[1] != len(weights):
            raise ValueError(f"{rows.shape[1]} features where the weights are {len(weights)}")
        return logistic(rows @ weights)

    return predict


def logistic(x):
    return 1 / (1 + np.exp(-x))


def test_captured_state(tmp_path):
    predict = scaled_by(np.linspace(-1, 1, 10))
    clipper.save(predict, tmp_path / "model")
    with serve(tmp_path, tmp_path / "model").wait_until_serving() as container:
        for rows in (ROWS, ROWS[:1]):
            np.testing.assert_array_equal(container.outputs(rows), predict(rows))
        (tensor,), _ = tensors.encode(ROWS[:2, :9], 2)
        assert container.predict(tensor, rows=2).error.message == "ValueError: 9 features where the weights are 10"
        assert len(container.outputs(ROWS[:2])) == 2
        assert container.stub.Describe(DescribeRequest()).properties["framework"] == f"cloudpickle {cloudpickle.__version__}"


def test_a_module_that_is_not_installed_and_rows_that_fail(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "inner_module.py").write_text("def upper(text):\n    return text.upper()\n")
    inner = importlib.import_module("inner_module")

    def predict(rows):
        return [inner.upper(row) if row else RowError("the text is empty") for row in rows]

    clipper.save(predict, tmp_path / "model", modules=[inner])
    with serve(tmp_path, tmp_path / "model").wait_until_serving() as container:
        assert container.outputs(["a", "bc"]) == ["A", "BC"]
        (tensor,), _ = tensors.encode(["a", "", "c"], 3)
        response = container.predict(tensor, rows=3)
        assert [(e.row, e.error.message) for e in response.row_errors] == [(1, "the text is empty")]
        assert (response.outputs[0].strings[0], response.outputs[0].strings[2]) == ("A", "C")


def test_conformance(tmp_path):
    clipper.save(scaled_by(np.ones(10)), tmp_path / "model")
    with serve(tmp_path, tmp_path / "model").wait_until_serving() as container:
        container.conforms(ROWS[0].tolist())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("missing", "FileNotFoundError"),
        ("truncated", "truncated"),
        ("another framework", "Error"),
        ("python", "it was saved with python 2.7, and here is python 3."),
        ("cloudpickle", f"it was saved with cloudpickle 0.1, and here is cloudpickle {cloudpickle.__version__}"),
        ("module", "No module named 'nowhere_installed'"),
        ("not callable", "predict is of type int, and not a function"),
    ],
)
def test_files_that_can_never_be_served(tmp_path, monkeypatch, spoil, words):
    path = tmp_path / "model"
    clipper.save(scaled_by(ROWS), path)
    header, _, pickled = path.read_bytes().partition(b"\n")
    if spoil == "missing":
        path.unlink()
    elif spoil == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif spoil == "another framework":
        np.save(path.open("wb"), ROWS)
    elif spoil in ("python", "cloudpickle"):
        path.write_bytes(json.dumps({**json.loads(header), spoil: "2.7" if spoil == "python" else "0.1"}).encode() + b"\n" + pickled)
    elif spoil == "module":
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "nowhere_installed.py").write_text("def predict(rows):\n    return rows\n")
        path.write_bytes(header + b"\n" + cloudpickle.dumps(importlib.import_module("nowhere_installed").predict))
    else:
        path.write_bytes(header + b"\n" + cloudpickle.dumps(3))
    with serve(tmp_path, path) as container:
        assert container.process.wait(60) == 78
        last = container.log().splitlines()[-1]
        assert str(path) in last
        assert words in last
        assert "expected a file written by clipper.save" in last


def test_what_cannot_be_saved(tmp_path):
    lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot be pickled"):
        clipper.save(lambda rows: [lock for _ in rows], tmp_path / "model")
    with pytest.raises(TypeError, match="a function is needed, not int"):
        clipper.save(3, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_deployed(tmp_path):
    clipper.save(scaled_by(np.ones(10)), tmp_path / "model")
    with deployed(ADAPTER, tmp_path, tmp_path / "model", default=0) as ask:
        assert ask(ROWS[0].tolist()) == scaled_by(np.ones(10))(ROWS[:1])[0]
