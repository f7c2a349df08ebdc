# SPDX-License-Identifier: Apache-2.0
"""Served predictions are the framework's own, value for value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xgboost
from clipper_proto.v1.model_container_service_pb2 import DescribeRequest
from sklearn.datasets import load_iris

from clipper_container import tensors
from clipper_container.testing import PATIENCE, ContainerProcess, deployed

ADAPTER = Path(__file__).with_name("adapter.py")

FLOWERS, SPECIES = load_iris(return_X_y=True)
# A missing value is NaN.
HOLES = np.where(np.random.default_rng(1).random(FLOWERS.shape) < 0.2, np.nan, FLOWERS)


def train(objective, **settings):
    return xgboost.train({"objective": objective, "max_depth": 3, "seed": 1, **settings}, xgboost.DMatrix(HOLES, SPECIES), 5)


def serve(folder, model, name="model.json", **environment):
    path = folder / name
    model.save_model(path)
    return ContainerProcess(ADAPTER, folder, environment={"CLIPPER_MODEL_PATH": str(path), **environment})


def check(container, predict, rows):
    """Compares in batches of one and of many."""
    for batch in (rows, rows[:1], rows[-1:]):
        got, want = container.outputs(batch), predict(batch)
        np.testing.assert_array_equal(got, want)
        assert got.dtype == want.dtype


@pytest.mark.parametrize("name", ["model.json", "model.ubj"])
def test_booster(tmp_path, name):
    booster = train("multi:softprob", num_class=3)
    with serve(tmp_path, booster, name).wait_until_serving() as container:
        for rows in (HOLES, FLOWERS, FLOWERS.astype(np.float32)):
            check(container, lambda batch: booster.predict(xgboost.DMatrix(batch)), rows)
        described = container.stub.Describe(DescribeRequest())
        assert [list(taken.shape) for taken in described.signature.inputs] == [[4]]
        assert dict(described.properties)["framework"] == f"xgboost {xgboost.__version__}"
        assert dict(described.properties)["class"] == "Booster"


def test_regression_with_names_and_a_file_without_an_ending(tmp_path):
    booster = xgboost.train({"max_depth": 3}, xgboost.DMatrix(HOLES, SPECIES, feature_names=list("abcd")), 5)
    booster.save_model(tmp_path / "model.ubj")
    (tmp_path / "model.ubj").rename(tmp_path / "model")
    with ContainerProcess(ADAPTER, tmp_path, environment={"CLIPPER_MODEL_PATH": str(tmp_path / "model")}).wait_until_serving() as container:
        check(container, lambda batch: booster.predict(xgboost.DMatrix(batch, feature_names=list("abcd"))), HOLES)


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_classes_of_scikit_learn(tmp_path, method):
    model = xgboost.XGBClassifier(n_estimators=5, max_depth=3).fit(HOLES, SPECIES)
    with serve(tmp_path, model, XGBOOST_CLASS="XGBClassifier", XGBOOST_METHOD=method).wait_until_serving() as container:
        check(container, getattr(model, method), HOLES)


def test_rows_of_the_wrong_shape(tmp_path):
    booster = train("reg:squarederror")
    with serve(tmp_path, booster).wait_until_serving() as container:
        for rows in (FLOWERS[:2, :3], ["two", "words"], [[1.0, 2.0], [3.0]]):
            (tensor,), _ = tensors.encode(rows, 2)
            assert container.predict(tensor, rows=2).error.message
        assert len(container.outputs(FLOWERS[:2])) == 2


def test_conformance(tmp_path):
    with serve(tmp_path, train("multi:softprob", num_class=3)).wait_until_serving() as container:
        container.conforms(FLOWERS[0].tolist(), FLOWERS[100].tolist())


@pytest.mark.parametrize("spoil", ["missing", "empty", "truncated", "truncated ubj", "text", "another model", "no such class", "no such method"])
def test_models_that_can_never_be_served(tmp_path, spoil):
    path = tmp_path / ("model.ubj" if spoil == "truncated ubj" else "model.json")
    train("reg:squarederror").save_model(path)
    environment = {"CLIPPER_MODEL_PATH": str(path)}
    if spoil == "missing":
        path.unlink()
    elif spoil == "empty":
        path.write_bytes(b"")
    elif spoil.startswith("truncated"):
        path.write_bytes(path.read_bytes()[:1000])
    elif spoil == "text":
        path.write_text("weights: 1, 2, 3")
    elif spoil == "another model":
        path.write_text('{"weights": [1, 2, 3]}')
    elif spoil == "no such class":
        environment["XGBOOST_CLASS"] = "Oracle"
    elif spoil == "no such method":
        environment.update(XGBOOST_CLASS="XGBRegressor", XGBOOST_METHOD="predict_the_future")
    with ContainerProcess(ADAPTER, tmp_path, environment=environment) as container:
        assert container.process.wait(60) == 78, container.log()
        last = container.log().splitlines()[-1]
        assert str(path) in last
        assert "expected a .json or .ubj file" in last


@pytest.mark.parametrize(("name", "old", "new"), [("model.json", b"[%d,", b"[9,"), ("model.ubj", b"i%c", b"i\x09")])
def test_a_later_version(tmp_path, name, old, new):
    major = int(xgboost.__version__.split(".")[0])
    train("reg:squarederror").save_model(tmp_path / name)
    before, version, after = (tmp_path / name).read_bytes().rpartition(b"version")
    (tmp_path / name).write_bytes(before + version + after.replace(old % major, new, 1))
    with ContainerProcess(ADAPTER, tmp_path, environment={"CLIPPER_MODEL_PATH": str(tmp_path / name)}) as container:
        assert container.process.wait(PATIENCE) == 78
        assert f"it was saved by XGBoost 9.{'.'.join(xgboost.__version__.split('.')[1:])}, and here is" in container.log().splitlines()[-1]


def test_deployed(tmp_path):
    booster = train("multi:softprob", num_class=3)
    booster.save_model(tmp_path / "model.ubj")
    with deployed(ADAPTER, tmp_path, tmp_path / "model.ubj", default=[0, 0, 0]) as ask:
        np.testing.assert_allclose(ask(FLOWERS[0].tolist()), booster.predict(xgboost.DMatrix(FLOWERS[:1]))[0], rtol=1e-6)
