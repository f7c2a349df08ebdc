# SPDX-License-Identifier: Apache-2.0
"""Served predictions are the framework's own, value for value."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyspark
import pytest
from clipper_proto.v1.model_container_service_pb2 import DescribeRequest, PredictRequest
from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import HashingTF, StandardScaler, StringIndexer, Tokenizer, VectorAssembler
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession

from clipper_container import tensors
from clipper_container.testing import PATIENCE, ContainerProcess, deployed

ADAPTER = Path(__file__).with_name("adapter.py")

ROWS = np.random.default_rng(1).normal(size=(60, 5))
LABELS = (ROWS[:, 0] > 0).astype(float)
CITIES = ["Oslo", "Łódź", "Rome"] * 20
AGES = np.arange(60)


@pytest.fixture(scope="module")
def spark():
    local = {"spark.ui.enabled": "false", "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
    with SparkSession.builder.master("local[1]").config(map=local).getOrCreate() as session:
        yield session


@pytest.fixture(scope="module")
def vectors(spark, tmp_path_factory):
    """A pipeline over a column of dense vectors, where it is saved, and what it says of ROWS."""
    frame = spark.createDataFrame([(Vectors.dense(x), float(y)) for x, y in zip(ROWS, LABELS)], ["features", "label"])
    model = Pipeline(stages=[StandardScaler(inputCol="features", outputCol="scaled"), LogisticRegression(featuresCol="scaled", maxIter=5)]).fit(frame)
    path = tmp_path_factory.mktemp("vectors") / "model"
    model.save(str(path))
    return path, model.transform(frame).collect()


def serve(folder, path, **environment):
    return ContainerProcess(ADAPTER, folder, environment={"CLIPPER_MODEL_PATH": str(path), **environment})


def answer(container, **inputs):
    """Returns the outputs by name."""
    rows = len(next(iter(inputs.values())))
    encoded, _ = tensors.encode(inputs, rows)
    response = container.predict(*encoded, rows=rows)
    assert not response.HasField("error"), response.error
    return {output.name: np.asarray(tensors.decode(PredictRequest(rows=rows, inputs=[output]))) for output in response.outputs}


def test_vectors(tmp_path, vectors):
    path, want = vectors
    with serve(tmp_path, path, SPARK_OUTPUT="prediction,probability").wait_until_serving() as container:
        for batch in (slice(0, 60), slice(0, 1), slice(59, 60)):
            got = answer(container, features=ROWS[batch])
            assert got["prediction"].tolist() == [row.prediction for row in want[batch]]
            assert got["probability"].tolist() == [row.probability.tolist() for row in want[batch]]
        assert dict(container.stub.Describe(DescribeRequest()).properties)["framework"] == f"spark {pyspark.__version__}"
        for rows in (ROWS[:2, :3], ["two", "words"]):
            (tensor,), _ = tensors.encode(rows, 2)
            assert container.predict(tensor, rows=2).error.message
        assert len(answer(container, features=ROWS[:2])["prediction"]) == 2


def test_named_columns(tmp_path, spark):
    frame = spark.createDataFrame([(c, int(a), Vectors.dense(x), float(y)) for c, a, x, y in zip(CITIES, AGES, ROWS, LABELS)], ["city", "age", "measures", "label"])
    stages = [StringIndexer(inputCol="city", outputCol="home"), VectorAssembler(inputCols=["home", "age", "measures"], outputCol="features"), LogisticRegression(maxIter=5)]
    model = Pipeline(stages=stages).fit(frame)
    model.save(str(tmp_path / "model"))
    want = model.transform(frame).collect()
    with serve(tmp_path, tmp_path / "model", SPARK_OUTPUT="probability").wait_until_serving() as container:
        for batch in (slice(0, 60), slice(0, 1)):
            got = answer(container, city=CITIES[batch], age=AGES[batch], measures=ROWS[batch])
            assert got["probability"].tolist() == [row.probability.tolist() for row in want[batch]]
        # A city that the indexer has never seen fails the batch, not the container.
        encoded, _ = tensors.encode({"city": ["Oslo", "Atlantis"], "age": AGES[:2], "measures": ROWS[:2]}, 2)
        assert "Atlantis" in container.predict(*encoded, rows=2).error.message
        assert len(answer(container, city=CITIES[:2], age=AGES[:2], measures=ROWS[:2])["probability"]) == 2


def test_text(tmp_path, spark):
    texts = ["a good film", "a bad film"] * 5
    frame = spark.createDataFrame(list(zip(texts, [1.0, 0.0] * 5)), ["text", "label"])
    model = Pipeline(stages=[Tokenizer(inputCol="text", outputCol="words"), HashingTF(inputCol="words", outputCol="features", numFeatures=64), LogisticRegression(maxIter=5)]).fit(frame)
    model.save(str(tmp_path / "model"))
    with serve(tmp_path, tmp_path / "model", SPARK_INPUT="text").wait_until_serving() as container:
        assert container.outputs(texts).tolist() == [row.prediction for row in model.transform(frame).collect()]


def test_conformance(tmp_path, vectors):
    with serve(tmp_path, vectors[0]).wait_until_serving() as container:
        container.conforms(ROWS[0].tolist(), ROWS[1].tolist())


def changed(source, path, folders, old, new):
    """Copies a saved pipeline and changes the metadata in the folders."""
    shutil.copytree(source, path)
    files = [file for folder in path.glob(folders) for file in folder.glob("part-*")]
    assert files
    for file in files:
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
        file.with_name(f".{file.name}.crc").unlink()


def test_a_pipeline_of_a_later_spark(tmp_path, vectors):
    """Spark does not look at the version, so it is served if its stages are known."""
    path, want = vectors
    changed(path, tmp_path / "model", "**/metadata", f'"sparkVersion":"{pyspark.__version__}"', '"sparkVersion":"99.0.0"')
    with serve(tmp_path, tmp_path / "model").wait_until_serving() as container:
        assert container.outputs(ROWS).tolist() == [row.prediction for row in want]


@pytest.mark.parametrize("spoil", ["missing", "truncated", "text", "another class", "a stage of the future"])
def test_models_that_can_never_be_served(tmp_path, vectors, spoil):
    path = tmp_path / "model"
    if spoil == "truncated":
        shutil.copytree(vectors[0], path)
        for part in path.rglob("*.parquet"):
            part.write_bytes(part.read_bytes()[:100])
        for check in path.rglob("*.crc"):
            check.unlink()
    elif spoil == "text":
        path.write_text("weights: 1, 2, 3")
    elif spoil == "another class":
        changed(vectors[0], path, "metadata", "ml.PipelineModel", "ml.Pipeline")
    elif spoil == "a stage of the future":
        changed(vectors[0], path, "stages/1*/metadata", "LogisticRegressionModel", "ModelOfTheFuture")
    with serve(tmp_path, path) as container:
        assert container.process.wait(PATIENCE) == 78, container.log()
        last = container.log().splitlines()[-1]
        assert str(path) in last
        assert "expected a folder that PipelineModel.save" in last


def test_deployed(tmp_path, vectors):
    path, want = vectors
    with deployed(ADAPTER, tmp_path, path, default=0, SPARK_OUTPUT="prediction,probability") as ask:
        answer = ask(ROWS[0].tolist())
        assert answer["prediction"] == want[0].prediction
        np.testing.assert_allclose(answer["probability"], want[0].probability.toArray(), rtol=1e-12)
