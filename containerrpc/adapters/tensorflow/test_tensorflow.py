# SPDX-License-Identifier: Apache-2.0
"""Served predictions are the framework's own, value for value."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from clipper_proto.v1 import tensor_pb2
from clipper_proto.v1.model_container_service_pb2 import DescribeRequest, PredictRequest

from tensorflow.core.protobuf import saved_model_pb2

from clipper_container import tensors
from clipper_container.testing import PATIENCE, ContainerProcess, deployed

ADAPTER = Path(__file__).with_name("adapter.py")

ROWS = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
VISITS = {
    "city": ["Oslo", "Łódź", "", "Rome"],
    "photo_bytes": [b"\xff\x00", b"", b"\x00", b"png"],
    "ages": np.arange(8, dtype=np.int64).reshape(4, 2),
    "member": np.array([True, False, True, True]),
    "anything": ROWS[:4].reshape(4, 2, 2),
}


class Visits(tf.Module):
    def __init__(self):
        super().__init__()
        self.weight = tf.Variable([[2.0], [3.0], [5.0], [7.0]])

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, "city"),
            tf.TensorSpec([None], tf.string, "photo_bytes"),
            tf.TensorSpec([None, None], tf.int64, "ages"),
            tf.TensorSpec([None], tf.bool, "member"),
            tf.TensorSpec(None, tf.float32, "anything"),
        ]
    )
    def every_type(self, city, photo_bytes, ages, member, anything):
        return {
            "shout": tf.strings.upper(city, "utf-8"),
            "words": tf.stack([city, tf.strings.as_string(member)], axis=1),
            "doubled_bytes": photo_bytes + photo_bytes,
            "total": tf.reduce_sum(ages, axis=1),
            "half": tf.cast(ages, tf.float16) / 2,
            "brain": tf.cast(ages, tf.bfloat16) / 3,
            "double": tf.cast(ages, tf.float64) / 3,
            "stranger": ~member,
            "anything": anything * 2,
        }

    @tf.function(input_signature=[tf.TensorSpec([1, 4], tf.float32, "x")])
    def one(self, x):
        return {"y": x @ self.weight}

    @tf.function(input_signature=[tf.TensorSpec([8, 4], tf.float32, "x")])
    def eight(self, x):
        return {"y": x @ self.weight}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")])
    def mean(self, x):
        return {"y": tf.reduce_mean(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "number"), tf.TensorSpec([None], tf.string, "label")])
    def strict(self, number, label):
        return {"number": tf.strings.to_number(number), "label": tf.io.decode_base64(label)}


@pytest.fixture(scope="module")
def visits(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "visits"
    module = Visits()
    names = ("every_type", "one", "eight", "mean", "strict")
    tf.saved_model.save(module, path, {name: getattr(module, name) for name in names})
    return path


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """What Keras exports: three classes of four numbers."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3, activation="softmax")])
    path = tmp_path_factory.mktemp("models") / "classifier"
    model.export(path, verbose=False)
    return path


def serve(folder, path, signature=None):
    chosen = {"TENSORFLOW_SIGNATURE": signature} if signature else {}
    return ContainerProcess(ADAPTER, folder, environment={"CLIPPER_MODEL_PATH": str(path), **chosen})


def check(container, path, signature="serving_default", **inputs):
    """Compares in batches of one and of many."""
    model = tf.saved_model.load(path)
    rows = len(next(iter(inputs.values())))
    for batch in (slice(0, rows), slice(0, 1), slice(rows - 1, rows)):
        taken = {name: values[batch] for name, values in inputs.items()}
        encoded, _ = tensors.encode(taken, len(range(rows)[batch]))
        response = container.predict(*encoded, rows=len(range(rows)[batch]))
        assert not response.HasField("error"), response.error
        wanted = model.signatures[signature](**{name: tf.constant(values) for name, values in taken.items()})
        assert {output.name for output in response.outputs} == set(wanted)
        for output in response.outputs:
            want = wanted[output.name].numpy()
            got = tensors.decode(PredictRequest(rows=len(want), inputs=[output]))
            if want.dtype == object:
                text = not output.name.endswith("_bytes")
                assert output.data_type == (tensor_pb2.DATA_TYPE_STRING if text else tensor_pb2.DATA_TYPE_BYTES)
                assert got == (np.vectorize(bytes.decode, otypes=[object])(want) if text else want).tolist()
            else:
                assert output.data_type == tensors.spec(want.dtype).data_type
                np.testing.assert_array_equal(got, want.astype(got.dtype))


def signature(container):
    described = container.stub.Describe(DescribeRequest()).signature
    return [{s.name: (s.data_type, list(s.shape)) for s in side} for side in (described.inputs, described.outputs)]


@pytest.fixture(scope="module")
def container(tmp_path_factory, classifier):
    with serve(tmp_path_factory.mktemp("run"), classifier).wait_until_serving() as running:
        yield running


def test_a_keras_model(container, classifier):
    check(container, classifier, x=ROWS)
    number = tensor_pb2.DATA_TYPE_FLOAT32
    assert signature(container) == [{"x": (number, [4])}, {"output_0": (number, [3])}]
    described = container.stub.Describe(DescribeRequest())
    assert (described.max_batch_rows, described.properties["framework"]) == (0, f"tensorflow {tf.__version__}")
    for rows, complaint in (
        (ROWS[:2, :3], "[2,3] is not compatible with expected shape [?,4]"),
        (ROWS[:2].astype(float), "expected to be a float tensor but is a double tensor"),
        (["two", "words"], "is not compatible with expected shape [?,4]"),
        ([[1.0, 2.0], [3.0]], "non-rectangular"),
    ):
        (tensor,), _ = tensors.encode(rows, 2)
        assert complaint in container.predict(tensor, rows=2).error.message
    assert len(container.outputs(ROWS[:2])) == 2


def test_conformance(container):
    container.conforms(ROWS[0].tolist(), ROWS[1].tolist())


def test_every_type(tmp_path, visits):
    with serve(tmp_path, visits, "every_type").wait_until_serving() as container:
        check(container, visits, "every_type", **VISITS)
        taken, given = signature(container)
        assert taken == {
            "city": (tensor_pb2.DATA_TYPE_STRING, []),
            "photo_bytes": (tensor_pb2.DATA_TYPE_BYTES, []),
            "ages": (tensor_pb2.DATA_TYPE_INT64, [-1]),
            "member": (tensor_pb2.DATA_TYPE_BOOL, []),
            "anything": (tensor_pb2.DATA_TYPE_FLOAT32, []),
        }
        assert given["words"] == (tensor_pb2.DATA_TYPE_STRING, [2])
        assert given["brain"] == (tensor_pb2.DATA_TYPE_BFLOAT16, [-1])
        encoded, _ = tensors.encode({"city": ["Oslo"], "ages": VISITS["ages"][:1]}, 1)
        assert "missing a required argument" in container.predict(*encoded, rows=1).error.message


def test_a_batch_of_one(tmp_path, visits):
    with serve(tmp_path, visits, "one").wait_until_serving() as container:
        check(container, visits, "one", x=ROWS[:1])
        assert container.stub.Describe(DescribeRequest()).max_batch_rows == 1


def test_rows_that_raise(tmp_path, visits):
    with serve(tmp_path, visits, "strict").wait_until_serving() as container:
        for numbers, labels, complaint in (
            (["1", "one"], ["T3Nsbw", ""], "StringToNumberOp could not correctly convert string: one"),
            (["1", "1"], ["T3Nsbw", "_w"], "can't decode byte 0xff"),
        ):
            encoded, _ = tensors.encode({"number": numbers, "label": labels}, 2)
            assert complaint in container.predict(*encoded, rows=2).error.message
        check(container, visits, "strict", number=["1", "2.5"], label=["T3Nsbw", ""])


def test_a_model_of_tensorflow_1(tmp_path):
    v1, path = tf.compat.v1, tmp_path / "model"
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 4])
        y = x @ v1.get_variable("weight", [4, 2])
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(path), {"x": x}, {"y": y})
    with serve(tmp_path, path).wait_until_serving() as container:
        check(container, path, x=ROWS)


@pytest.mark.parametrize("spoil", ["missing", "truncated", "weights truncated", "file of Keras"])
def test_models_that_can_never_be_served(tmp_path, classifier, spoil):
    path = tmp_path / "model"
    if spoil == "file of Keras":
        path = path.with_suffix(".keras")
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save(path)
    elif spoil != "missing":
        shutil.copytree(classifier, path)
        part = path / ("saved_model.pb" if spoil == "truncated" else "variables/variables.data-00000-of-00001")
        part.write_bytes(part.read_bytes()[:-100])
    never(tmp_path, path)


def changed(source, path, change):
    """Copies a SavedModel whose graph and description are changed."""
    shutil.copytree(source, path)
    file = path / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    change(model.meta_graphs[0])
    file.write_bytes(model.SerializeToString())
    return path


def test_an_operator_of_the_future(tmp_path, classifier):
    def change(graph):
        for function in graph.graph_def.library.function:
            for node in function.node_def:
                if node.op == "MatMul":
                    node.op = "MatMulOfTheFuture"

    never(tmp_path, changed(classifier, tmp_path / "model", change), complaint="Op type not registered 'MatMulOfTheFuture'")


def test_a_model_of_a_later_tensorflow(tmp_path, classifier):
    """Its operators are known, so TensorFlow serves it; in Python it does not look at versions. A property says whose it is."""

    def change(graph):
        graph.meta_info_def.tensorflow_version = "99.0.0"
        graph.graph_def.versions.producer = graph.graph_def.versions.min_consumer = 99999

    path = changed(classifier, tmp_path / "model", change)
    with serve(tmp_path, path).wait_until_serving() as container:
        check(container, path, x=ROWS)
        assert container.stub.Describe(DescribeRequest()).properties["saved by"] == "tensorflow 99.0.0"


@pytest.mark.parametrize(("name", "complaint"), [("predict", "KeyError: 'predict'"), ("eight", "(8,)"), ("mean", "()")])
def test_signatures_that_can_never_be_served(tmp_path, visits, name, complaint):
    never(tmp_path, visits, name, complaint)


def never(folder, path, signature=None, complaint=""):
    with serve(folder, path, signature) as container:
        assert container.process.wait(PATIENCE) == 78, container.log()
        last = container.log().splitlines()[-1]
        assert str(path) in last
        assert complaint in last
        assert "expected a SavedModel's folder with the signature of TENSORFLOW_SIGNATURE" in last


def test_deployed(tmp_path, classifier):
    with deployed(ADAPTER, tmp_path, classifier, default=[0, 0, 0]) as ask:
        want = tf.saved_model.load(str(classifier)).signatures["serving_default"](x=tf.constant(ROWS[:1]))["output_0"]
        np.testing.assert_allclose(ask(ROWS[0].tolist()), want[0], rtol=1e-5)
