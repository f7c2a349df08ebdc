# SPDX-License-Identifier: Apache-2.0
"""Served predictions are the framework's own, value for value."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np
import pytest
from clipper_proto.v1.model_container_service_pb2 import DescribeRequest

from clipper_container import tensors
from clipper_container.testing import PATIENCE, ContainerProcess, deployed

ADAPTER = Path(__file__).with_name("adapter.py")

ROWS = np.random.default_rng(1).normal(size=(300, 4))
LABELS = (ROWS[:, 0] > 0).astype(int) + (ROWS[:, 1] > 0)
# A missing value is NaN.
HOLES = np.where(np.random.default_rng(2).random(ROWS.shape) < 0.2, np.nan, ROWS)


def train(objective, **settings):
    return lightgbm.train({"objective": objective, "num_leaves": 7, "verbose": -1, **settings}, lightgbm.Dataset(HOLES, LABELS), 5)


def serve(folder, booster):
    path = folder / "model.txt"
    booster.save_model(path)
    return ContainerProcess(ADAPTER, folder, environment={"CLIPPER_MODEL_PATH": str(path)})


def check(container, booster, rows):
    """Compares in batches of one and of many."""
    for batch in (rows, rows[:1], rows[-1:]):
        got, want = container.outputs(batch), booster.predict(batch)
        np.testing.assert_array_equal(got, want)
        assert got.dtype == want.dtype


@pytest.mark.parametrize(("objective", "settings"), [("multiclass", {"num_class": 3}), ("regression", {})])
def test_predictions(tmp_path, objective, settings):
    booster = train(objective, **settings)
    with serve(tmp_path, booster).wait_until_serving() as container:
        for rows in (HOLES, ROWS, ROWS.astype(np.float32), np.arange(8).reshape(2, 4)):
            check(container, booster, rows)
        described = container.stub.Describe(DescribeRequest())
        assert [list(taken.shape) for taken in described.signature.inputs] == [[4]]
        assert dict(described.properties)["framework"] == f"lightgbm {lightgbm.__version__}"


def test_rows_of_the_wrong_shape(tmp_path):
    with serve(tmp_path, train("regression")).wait_until_serving() as container:
        for rows in (ROWS[:2, :3], ["two", "words"], [[1.0, 2.0], [3.0]]):
            (tensor,), _ = tensors.encode(rows, 2)
            assert container.predict(tensor, rows=2).error.message
        assert len(container.outputs(ROWS[:2])) == 2


def test_conformance(tmp_path):
    with serve(tmp_path, train("multiclass", num_class=3)).wait_until_serving() as container:
        container.conforms(ROWS[0].tolist(), ROWS[1].tolist())


@pytest.mark.parametrize("spoil", ["missing", "empty", "truncated", "text", "not text"])
def test_models_that_can_never_be_served(tmp_path, spoil):
    path = tmp_path / "model.txt"
    train("regression").save_model(path)
    if spoil == "missing":
        path.unlink()
    elif spoil == "empty":
        path.write_bytes(b"")
    elif spoil == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif spoil == "text":
        path.write_text("weights: 1, 2, 3\nend of trees\n")
    elif spoil == "not text":
        path.write_bytes(bytes(range(256)))
    with ContainerProcess(ADAPTER, tmp_path, environment={"CLIPPER_MODEL_PATH": str(path)}) as container:
        assert container.process.wait(60) == 78, container.log()
        last = container.log().splitlines()[-1]
        assert str(path) in last
        assert "expected a text file of LightGBM's Booster.save_model" in last


def test_a_format_of_a_later_version(tmp_path):
    booster = train("regression")
    (tmp_path / "model.txt").write_text(booster.model_to_string().replace("version=v4", "version=v5", 1))
    with ContainerProcess(ADAPTER, tmp_path, environment={"CLIPPER_MODEL_PATH": str(tmp_path / "model.txt")}) as container:
        assert container.process.wait(PATIENCE) == 78
        assert f"its format is v5, and LightGBM {lightgbm.__version__} knows v4" in container.log().splitlines()[-1]


def test_deployed(tmp_path):
    booster = train("multiclass", num_class=3)
    booster.save_model(tmp_path / "model.txt")
    with deployed(ADAPTER, tmp_path, tmp_path / "model.txt", default=[0, 0, 0]) as ask:
        assert ask(ROWS[0].tolist()) == booster.predict(ROWS[:1])[0].tolist()
