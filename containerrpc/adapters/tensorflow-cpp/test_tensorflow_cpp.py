# SPDX-License-Identifier: Apache-2.0
"""Served predictions are those of TensorFlow in Python, value for value: both run the same library."""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from clipper_proto.v1 import tensor_pb2
from clipper_proto.v1.model_container_service_pb2 import BatchTensor, DescribeRequest, PredictRequest

from tensorflow.core.protobuf import saved_model_pb2

from clipper_container import tensors
from clipper_container.testing import ContainerProcess, deployed

ADAPTER = Path(os.environ["CLIPPER_ADAPTER"])
LIBRARY = tf.sysconfig.get_lib()

RANDOM = np.random.default_rng(1)
ROWS = RANDOM.normal(size=(50, 4)).astype(np.float32)
NUMBERS = ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]


def tensor(dtype, *shape, name=None):
    return tf.TensorSpec(shape, dtype, name)


class Model(tf.Module):
    """A model with a signature for each thing that a model can be."""

    def __init__(self):
        self.weights = tf.Variable(RANDOM.normal(size=(4, 3)).astype(np.float32))
        self.last = tf.Variable(tf.zeros([0, 4]), shape=[None, 4])
        self.classes = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([0, 1, 2], ["a", "b", "ç"], tf.int32, tf.string), "?")

    @tf.function(input_signature=[tensor("float32", None, 4)])
    def classify(self, x):
        probabilities = tf.nn.softmax(x @ self.weights)
        return {"probabilities": probabilities, "label": self.classes.lookup(tf.argmax(probabilities, 1, tf.int32))}

    @tf.function(input_signature=[tensor(dtype, None, None, name=f"x_{dtype}") for dtype in NUMBERS])
    def echo(self, *numbers):
        return {f"y_{number.dtype.name}": tf.identity(number) for number in numbers}

    @tf.function(input_signature=[tensor("string", None, 2)])
    def join(self, x):
        return {"joined": tf.strings.join([x[:, 0], x[:, 1]], "|"), "same": x}

    @tf.function(input_signature=[tensor("string", None, 2)])
    def raw(self, x_bytes):
        return {"y_bytes": x_bytes, "base64": tf.io.encode_base64(x_bytes), "y": x_bytes}

    @tf.function(input_signature=[tensor("string", None)])
    def parse(self, x):
        return {"number": tf.strings.to_number(x)}

    @tf.function(input_signature=[tensor("float32", None, 4)])
    def previous(self, x):
        last = tf.identity(self.last)
        with tf.control_dependencies([last]):
            self.last.assign(x)
        return {"last": tf.repeat(tf.reduce_sum(last)[None], tf.shape(x)[0])}

    @tf.function(input_signature=[tensor("float32", 1, 4)])
    def one(self, x):
        return {"y": x * 2}

    @tf.function(input_signature=[tensor("float32")])
    def scalar(self, x):
        return {"y": x[None]}

    @tf.function(input_signature=[tensor("float32", 8, 4)])
    def eight(self, x):
        return {"y": x}

    @tf.function(input_signature=[tensor("complex64", None)])
    def complex(self, x):
        return {"y": x}

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32)])
    def any_rank(self, x):
        return {"y": x + 1}

    @tf.function(input_signature=[tensor("float32", None, 4)])
    def no_rows(self, x):
        return {"total": tf.reduce_sum(x)[None][:1], "y": x}


NAMES = ["classify", "echo", "join", "raw", "parse", "previous", "one", "scalar", "eight", "complex", "any_rank", "no_rows"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    model = Model()
    tf.saved_model.save(model, str(folder), {"serving_default": model.classify, **{name: getattr(model, name) for name in NAMES}})
    return folder


def serve(folder, model, signature="serving_default", **environment):
    environment = {"CLIPPER_MODEL_PATH": str(model), "TENSORFLOW_LIBRARY": LIBRARY, "TENSORFLOW_SIGNATURE": signature, **environment}
    return ContainerProcess(ADAPTER, folder, environment=environment)


def predict(container, **inputs):
    """Returns the outputs by name, decoded, with bytes as they travel."""
    rows = len(next(iter(inputs.values())))
    encoded, _ = tensors.encode(inputs, rows)
    response = container.predict(*encoded, rows=rows)
    assert not response.HasField("error"), response.error
    return {output.name: tensors.decode(PredictRequest(rows=rows, inputs=[BatchTensor(name="", **fields(output))])) for output in response.outputs}


def fields(output):
    return {field.name: value for field, value in output.ListFields() if field.name != "name"}


def check(container, function, **inputs):
    """Compares in batches of one and of many."""
    rows = len(next(iter(inputs.values())))
    for batch in (slice(0, rows), slice(0, 1), slice(rows - 1, rows)):
        part = {name: values[batch] for name, values in inputs.items()}
        want = function(**{name: tf.constant(values) for name, values in part.items()})
        got = predict(container, **part)
        assert got.keys() == want.keys()
        for name, tensor in want.items():
            values = tensor.numpy()
            if values.dtype == object:
                assert np.asarray(got[name]).tolist() == np.vectorize(bytes.decode)(values).tolist()
            elif values.dtype == ml_dtypes.bfloat16:
                np.testing.assert_array_equal(got[name], values.astype(np.float32))
            else:
                assert got[name].dtype == values.dtype
                np.testing.assert_array_equal(got[name], values)


def test_classes_and_probabilities_and_bad_batches(tmp_path, saved):
    function = tf.saved_model.load(str(saved)).signatures["classify"]
    with serve(tmp_path, saved).wait_until_serving() as container:
        check(container, function, x=ROWS)
        described = container.stub.Describe(DescribeRequest())
        (taken,), (label, probabilities) = described.signature.inputs, described.signature.outputs
        assert (taken.name, taken.data_type, list(taken.shape)) == ("x", tensor_pb2.DATA_TYPE_FLOAT32, [4])
        assert (label.name, list(label.shape)) == ("label", [])
        assert (probabilities.name, probabilities.data_type, list(probabilities.shape)) == ("probabilities", tensor_pb2.DATA_TYPE_FLOAT32, [3])
        assert described.properties["framework"] == f"tensorflow {tf.__version__}"

        for rows in (ROWS[:2, :3], ROWS[:2].astype(float), ["two", "words"], [[1.0, 2.0], [3.0]]):
            (bad,), _ = tensors.encode(rows, 2)
            assert container.predict(bad, rows=2).error.message
            check(container, function, x=ROWS[:2])


def test_large_batches(tmp_path, saved):
    function = tf.saved_model.load(str(saved)).signatures["classify"]
    rows = RANDOM.normal(size=(1_000_000, 4)).astype(np.float32)
    with serve(tmp_path, saved).wait_until_serving() as container:
        got, want = predict(container, x=rows), function(tf.constant(rows))
        np.testing.assert_array_equal(got["probabilities"], want["probabilities"])
        assert got["label"] == [label.decode() for label in want["label"].numpy()]


def test_numbers_of_every_type(tmp_path, saved):
    """The outputs are the inputs' own memory."""
    function = tf.saved_model.load(str(saved)).signatures["echo"]
    numbers = {f"x_{dtype}": (RANDOM.random((3000, 7)) * 2).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype) for dtype in NUMBERS}
    with serve(tmp_path, saved, "echo").wait_until_serving() as container:
        check(container, function, **numbers)
        check(container, function, **{name: values[:, :0] for name, values in numbers.items()})


def test_text_and_byte_strings(tmp_path, saved):
    function = tf.saved_model.load(str(saved)).signatures["join"]
    with serve(tmp_path, saved, "join").wait_until_serving() as container:
        check(container, function, x=[["good", "film"], ["", "zażółć"], ["long" * 100, "\0"]])
        for rows in (RANDOM.random((2, 2)), [[b"byte", b"strings"]] * 2):
            (bad,), _ = tensors.encode(rows, 2)
            assert "the model takes string" in container.predict(bad, rows=2).error.message
    (tmp_path / "raw").mkdir()
    with serve(tmp_path / "raw", saved, "raw").wait_until_serving() as container:
        rows = [[b"bytes\0", b""], [b"a" * 1000, b"end"]]
        assert predict(container, x_bytes=rows) == {
            "y_bytes": rows,
            "y": [[value.decode() for value in row] for row in rows],
            "base64": [[base64.urlsafe_b64encode(value).decode().rstrip("=") for value in row] for row in rows],
        }
        (bad,), _ = tensors.encode([[b"\xff", b"\xfe"]], 1)
        assert "not UTF-8" in container.predict(bad, rows=1).error.message


def test_a_batch_that_raises(tmp_path, saved):
    with serve(tmp_path, saved, "parse").wait_until_serving() as container:
        (bad,), _ = tensors.encode(["1", "many"], 2)
        assert "many" in container.predict(bad, rows=2).error.message
        assert predict(container, x=["1", "2.5"])["number"].tolist() == [1, 2.5]


def test_a_model_that_keeps_its_input(tmp_path, saved):
    """The memory of a batch must not be used again while a variable has it."""
    ones = np.ones((100_000, 4), np.float32)
    with serve(tmp_path, saved, "previous").wait_until_serving() as container:
        assert predict(container, x=ones)["last"][0] == 0
        for last in range(1, 6):
            assert predict(container, x=(last + 1) * ones)["last"][0] == last * ones.size


def test_a_batch_dimension_of_one(tmp_path, saved):
    with serve(tmp_path, saved, "one").wait_until_serving() as container:
        assert container.stub.Describe(DescribeRequest()).max_batch_rows == 1
        np.testing.assert_array_equal(predict(container, x=ROWS[:1])["y"], ROWS[:1] * 2)


def test_rows_of_any_shape(tmp_path, saved):
    with serve(tmp_path, saved, "any_rank").wait_until_serving() as container:
        for rows in (ROWS, ROWS[:, 0], ROWS.reshape(10, 5, 4)):
            np.testing.assert_array_equal(predict(container, x=rows)["y"], rows + 1)


def test_an_output_that_has_no_rows(tmp_path, saved):
    with serve(tmp_path, saved, "no_rows").wait_until_serving() as container:
        (rows,), _ = tensors.encode(ROWS, len(ROWS))
        assert "has 1 rows for a batch of 50" in container.predict(rows, rows=len(ROWS)).error.message


def test_a_network_of_keras(tmp_path):
    layers = tf.keras.layers
    network = tf.keras.Sequential([layers.Input((8, 8, 1)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(10, activation="softmax")])
    network.export(str(tmp_path / "model"), verbose=False)
    function = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    (name,) = function.structured_input_signature[1]
    with serve(tmp_path, tmp_path / "model").wait_until_serving() as container:
        check(container, function, **{name: RANDOM.normal(size=(20, 8, 8, 1)).astype(np.float32)})


def test_models_of_tensorflow_1(tmp_path):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x, sparse = v1.placeholder("float32", [None, 4], "x"), v1.sparse_placeholder("float32", [None, 4], "sparse")
        signatures = {
            "serving_default": v1.saved_model.predict_signature_def({"x": x}, {"y": x * 2}),
            "sparse": v1.saved_model.predict_signature_def({"x": sparse}, {"y": v1.sparse_tensor_to_dense(sparse)}),
        }
        builder = v1.saved_model.Builder(str(tmp_path / "model"))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    with serve(tmp_path, tmp_path / "model").wait_until_serving() as container:
        np.testing.assert_array_equal(predict(container, x=ROWS)["y"], ROWS * 2)
    never(tmp_path, tmp_path / "model", "sparse or ragged tensor", TENSORFLOW_SIGNATURE="sparse")


def test_conformance(tmp_path, saved):
    with serve(tmp_path, saved).wait_until_serving() as container:
        container.conforms(ROWS[0].tolist(), ROWS[1].tolist())


def test_tensorflow_is_apart_from_grpc(tmp_path):
    """No symbol of TensorFlow is taken from the protobuf and abseil of gRPC, which have the same names, nor theirs from TensorFlow."""
    environment = {"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": str(tmp_path / "loader")}
    never(tmp_path, tmp_path / "none", "no such file", **environment)
    (bindings,) = tmp_path.glob("loader.*")
    bound = set()
    with bindings.open() as lines:
        for line in lines:
            words = line.split()
            if words[1:3] == ["binding", "file"]:  # PID: binding file FROM [0] to TO [0]: ...
                bound.add((words[3], words[6]))
    bindings.unlink()
    bound = {tuple(os.path.basename(file).split(".so")[0] for file in pair) for pair in bound}
    takes = {to for file, to in bound if file.startswith("libtensorflow")}
    assert takes == {"libtensorflow_cc", "libtensorflow_framework", "libstdc++", "libgcc_s", "libc", "libm", "ld-linux-x86-64"}
    assert {file for file, to in bound if to.startswith("libtensorflow")} == {"libtensorflow_cc", "libtensorflow_framework"}


@pytest.mark.parametrize("spoil", ["missing", "a file", "empty", "truncated", "text", "no variables", "truncated variables", "another graph"])
def test_models_that_can_never_be_served(tmp_path, saved, spoil):
    model = tmp_path / "model"
    shutil.copytree(saved, model)
    graph, (weights,) = model / "saved_model.pb", (model / "variables").glob("*.data*")
    if spoil == "missing":
        shutil.rmtree(model)
    elif spoil == "a file":
        shutil.rmtree(model)
        model.write_bytes(b"PK\3\4 of another framework")
    elif spoil == "empty":
        graph.write_bytes(b"")
    elif spoil == "truncated":
        graph.write_bytes(graph.read_bytes()[:-100])
    elif spoil == "text":
        graph.write_text("weights: 1, 2, 3")
    elif spoil == "no variables":
        shutil.rmtree(model / "variables")
    elif spoil == "truncated variables":
        weights.write_bytes(weights.read_bytes()[:20])
    elif spoil == "another graph":
        graph.write_bytes(graph.read_bytes().replace(b"\x05serve", b"\x05train"))
    never(tmp_path, model, "expected the folder of a SavedModel")


@pytest.mark.parametrize(
    ("version", "complaint"),
    [
        ("later", "GraphDef min consumer version 99999 above current version"),
        ("shut out", "GraphDef disallows consumer version"),
        ("operator", "Op type not registered 'MatMulOfTheFuture'"),
    ],
)
def test_models_of_another_version(tmp_path, saved, version, complaint):
    shutil.copytree(saved, tmp_path / "model")
    file = tmp_path / "model" / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    graph = model.meta_graphs[0].graph_def
    if version == "later":
        graph.versions.min_consumer = 99999
    elif version == "shut out":
        graph.versions.bad_consumers.append(tf.version.GRAPH_DEF_VERSION)
    else:
        for node in (node for function in graph.library.function for node in function.node_def if node.op == "MatMul"):
            node.op = "MatMulOfTheFuture"
    file.write_bytes(model.SerializeToString())
    never(tmp_path, tmp_path / "model", complaint)


@pytest.mark.parametrize(
    ("signature", "complaint"),
    [
        ("regress", "no signature 'regress' with inputs and outputs; it has any_rank, classify"),
        ("scalar", "no first dimension that is the batch"),
        ("eight", "no first dimension that is the batch"),
        ("complex", "'x' of the signature is of TensorFlow's type 8"),
    ],
)
def test_signatures_that_can_never_be_served(tmp_path, saved, signature, complaint):
    never(tmp_path, saved, complaint, TENSORFLOW_SIGNATURE=signature)


def test_without_tensorflow(tmp_path, saved):
    never(tmp_path, saved, "pip install tensorflow-cpu", TENSORFLOW_LIBRARY=str(tmp_path))
    never(tmp_path, saved, "has no TF_Version", TENSORFLOW_LIBRARY="libm.so.6")


def never(folder, model, complaint, **environment):
    with serve(folder, model, **environment) as container:
        assert container.process.wait(60) == 78, container.log()
        last = container.log().splitlines()[-1]
        assert str(model) in last
        assert complaint in last


def test_deployed(tmp_path, saved):
    with deployed(ADAPTER, tmp_path, saved, default="none", framework="tensorflow-cpp", TENSORFLOW_LIBRARY=LIBRARY) as ask:
        want = tf.saved_model.load(str(saved)).signatures["serving_default"](x=tf.constant(ROWS[:1]))
        answer = ask(ROWS[0].tolist())
        assert answer["label"] == want["label"].numpy()[0].decode()
        np.testing.assert_allclose(answer["probabilities"], want["probabilities"][0], rtol=1e-5)
