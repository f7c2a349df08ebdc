# SPDX-License-Identifier: Apache-2.0
"""Served predictions are the framework's own, value for value."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import joblib
import numpy as np
import pytest
import sklearn
from clipper_proto.v1 import tensor_pb2
from clipper_proto.v1.model_container_service_pb2 import DescribeRequest
from sklearn.cluster import KMeans
from sklearn.datasets import load_diabetes, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from clipper_container import tensors
from clipper_container.testing import PATIENCE, ContainerProcess, deployed

ADAPTER = Path(__file__).with_name("adapter.py")

DIGITS, LABELS = load_digits(return_X_y=True)
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])[LABELS]
PATIENTS, PROGRESSION = load_diabetes(return_X_y=True)
TEXTS = ["good film", "bad film", "very good", "very bad", "a good one", "a bad one"]
MOODS = ["happy", "sad"] * 3


def serve(folder, estimator, method="predict"):
    path = folder / "model.joblib"
    joblib.dump(estimator, path)
    return ContainerProcess(ADAPTER, folder, environment={"CLIPPER_MODEL_PATH": str(path), "SKLEARN_METHOD": method})


def check(container, want, rows):
    """Compares in batches of one and of many."""
    got = container.outputs(rows)
    np.testing.assert_array_equal(np.asarray(got), want)
    if isinstance(got, np.ndarray):
        assert got.dtype == want.dtype
    for i in (0, len(rows) - 1):
        np.testing.assert_array_equal(np.asarray(container.outputs(rows[i : i + 1]))[0], want[i])


@pytest.mark.parametrize(
    ("estimator", "labels"),
    [
        (make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)), LABELS),
        (RandomForestClassifier(n_estimators=10, random_state=1), NAMES),
        (RandomForestClassifier(n_estimators=10, random_state=1), NAMES.astype(object)),
        (SVC(random_state=1), LABELS % 2 == 0),
    ],
    ids=["integers", "strings", "objects", "booleans"],
)
def test_labels(tmp_path, estimator, labels):
    estimator.fit(DIGITS[:500], labels[:500])
    with serve(tmp_path, estimator).wait_until_serving() as container:
        check(container, estimator.predict(DIGITS[500:700]), DIGITS[500:700])
        described = container.stub.Describe(DescribeRequest())
        (taken,), (given,) = described.signature.inputs, described.signature.outputs
        assert (taken.data_type, taken.shape) == (tensor_pb2.DATA_TYPE_UNSPECIFIED, [64])
        assert given.data_type == tensors.spec(labels.dtype).data_type
        assert described.properties["framework"] == f"scikit-learn {sklearn.__version__}"
        assert described.properties["estimator"] == type(estimator).__name__


def test_probabilities(tmp_path):
    estimator = RandomForestClassifier(n_estimators=10, random_state=1).fit(DIGITS[:500], NAMES[:500])
    with serve(tmp_path, estimator, "predict_proba").wait_until_serving() as container:
        check(container, estimator.predict_proba(DIGITS[500:700]), DIGITS[500:700])


def test_narrow_inputs(tmp_path):
    estimator = LogisticRegression(max_iter=200).fit(DIGITS[:500], LABELS[:500])
    rows = DIGITS[500:600].astype(np.uint8)
    with serve(tmp_path, estimator).wait_until_serving() as container:
        check(container, estimator.predict(rows), rows)


def test_regression(tmp_path):
    estimator = LinearRegression().fit(PATIENTS, PROGRESSION)
    with serve(tmp_path, estimator).wait_until_serving() as container:
        np.testing.assert_array_equal(container.outputs(PATIENTS), estimator.predict(PATIENTS))
        # One row takes another path through the linear algebra library.
        np.testing.assert_array_equal(container.outputs(PATIENTS[:1]), estimator.predict(PATIENTS[:1]))
        assert not container.stub.Describe(DescribeRequest()).signature.outputs


def test_several_targets(tmp_path):
    targets = np.stack([LABELS, LABELS % 2], axis=1)[:500]
    estimator = MultiOutputClassifier(RandomForestClassifier(n_estimators=5, random_state=1)).fit(DIGITS[:500], targets)
    with serve(tmp_path, estimator).wait_until_serving() as container:
        check(container, estimator.predict(DIGITS[500:600]), DIGITS[500:600])


def test_clusters(tmp_path):
    estimator = KMeans(4, n_init=1, random_state=1).fit(DIGITS)
    with serve(tmp_path, estimator, "transform").wait_until_serving() as container:
        np.testing.assert_array_equal(container.outputs(DIGITS[:100]), estimator.transform(DIGITS[:100]))


def test_text(tmp_path):
    estimator = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, MOODS)
    with serve(tmp_path, estimator).wait_until_serving() as container:
        check(container, estimator.predict(TEXTS), TEXTS)
        assert not container.stub.Describe(DescribeRequest()).signature.inputs


def test_rows_of_the_wrong_shape(tmp_path):
    estimator = LogisticRegression(max_iter=200).fit(DIGITS[:500], LABELS[:500])
    with serve(tmp_path, estimator).wait_until_serving() as container:
        (tensor,), _ = tensors.encode(DIGITS[:2, :63], 2)
        assert "63 features" in container.predict(tensor, rows=2).error.message
        assert len(container.outputs(DIGITS[:2])) == 2


@pytest.mark.parametrize("spoil", ["missing", "truncated", "text", "another object", "no such method"])
def test_models_that_can_never_be_served(tmp_path, spoil):
    estimator = SVC().fit(DIGITS[:500], LABELS[:500])
    path = tmp_path / "model.joblib"
    joblib.dump({"not": "an estimator"} if spoil == "another object" else estimator, path)
    if spoil == "missing":
        path.unlink()
    elif spoil == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif spoil == "text":
        path.write_text("weights: 1, 2, 3")
    method = "predict_the_future" if spoil == "no such method" else "predict"
    with ContainerProcess(ADAPTER, tmp_path, environment={"CLIPPER_MODEL_PATH": str(path), "SKLEARN_METHOD": method}) as container:
        assert container.process.wait(60) == 78
        last = container.log().splitlines()[-1]
        assert str(path) in last
        assert "expected an estimator written by joblib.dump" in last


def test_an_estimator_of_another_version(tmp_path, monkeypatch):
    monkeypatch.setattr(sklearn.base, "__version__", "1.2.0")
    with serve(tmp_path, make_pipeline(StandardScaler(), SVC()).fit(DIGITS, LABELS)) as container:
        monkeypatch.undo()
        container.wait_until_serving()
        assert container.stub.Describe(DescribeRequest()).properties["saved by"] == "scikit-learn 1.2.0"
        assert f"from version 1.2.0 when using version {sklearn.__version__}" in container.log()


def test_an_estimator_whose_class_is_gone(tmp_path, monkeypatch):
    gone = ModuleType("sklearn.gone")
    gone.Gone = type("Gone", (), {"__module__": "sklearn.gone"})
    monkeypatch.setitem(sys.modules, "sklearn.gone", gone)
    with serve(tmp_path, gone.Gone()) as container:
        assert container.process.wait(PATIENCE) == 78
        last = container.log().splitlines()[-1]
        for words in (str(tmp_path / "model.joblib"), "No module named 'sklearn.gone'", f"here is scikit-learn {sklearn.__version__}"):
            assert words in last


class Large:
    """Takes 4 GiB of addresses when it is loaded, and hardly any memory."""

    def __reduce__(self):
        return np.zeros, (1 << 32, np.uint8)


@pytest.mark.parametrize(("limit", "code", "words"), [("unlimited", 78, "no attribute 'predict'"), (3 << 20, 1, "not enough memory to load {}")])
def test_too_little_memory(tmp_path, limit, code, words):
    joblib.dump(Large(), tmp_path / "model.joblib")
    limited = ("-c", f'ulimit -v {limit}; exec "$@"', "sh", sys.executable, str(ADAPTER))
    environment = {"CLIPPER_MODEL_PATH": str(tmp_path / "model.joblib"), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with ContainerProcess(Path("/bin/sh"), tmp_path, *limited, environment=environment) as container:
        assert container.process.wait(PATIENCE) == code, container.log()
        assert words.format(tmp_path / "model.joblib") in container.log().splitlines()[-1]


def test_deployed(tmp_path):
    estimator = LogisticRegression(max_iter=20).fit(DIGITS[:200], NAMES[:200])
    joblib.dump(estimator, tmp_path / "model.joblib")
    with deployed(ADAPTER, tmp_path, tmp_path / "model.joblib", default="none") as ask:
        assert ask(DIGITS[0].tolist()) == estimator.predict(DIGITS[:1])[0]
