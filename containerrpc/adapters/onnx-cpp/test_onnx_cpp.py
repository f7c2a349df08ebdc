# SPDX-License-Identifier: Apache-2.0
"""Served predictions are those of ONNX Runtime in Python, value for value."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from clipper_proto.v1 import error_pb2, tensor_pb2
from clipper_proto.v1.model_container_service_pb2 import DescribeRequest, PredictRequest
from onnx import TensorProto, helper, numpy_helper

from clipper_container import tensors
from clipper_container.testing import PATIENCE, ContainerProcess

ADAPTER = Path(os.environ["CLIPPER_ADAPTER"])

RANDOM = np.random.default_rng(1)
ROWS = RANDOM.normal(size=(50, 4)).astype(np.float32)
WEIGHTS = RANDOM.normal(size=(4, 3)).astype(np.float32)


def save(folder, nodes, inputs, outputs, constants=()):
    """inputs and outputs are (name, element type, shape) of a batch."""
    values = [[helper.make_tensor_value_info(*value) for value in side] for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, "model", *values, initializer=[numpy_helper.from_array(array, name) for name, array in constants])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def softmax(folder, batch="batch"):
    """Three classes of four numbers: their names and their probabilities."""
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"]),
        helper.make_node("ArgMax", ["scores"], ["index"], axis=1, keepdims=0),
        helper.make_node("LabelEncoder", ["index"], ["label"], domain="ai.onnx.ml", keys_int64s=[0, 1, 2], values_strings=["a", "b", "c"]),
    ]
    outputs = [("label", TensorProto.STRING, [batch]), ("probabilities", TensorProto.FLOAT, [batch, 3])]
    return save(folder, nodes, [("x", TensorProto.FLOAT, [batch, 4])], outputs, [("weights", WEIGHTS)])


def serve(folder, path):
    return ContainerProcess(ADAPTER, folder, environment={"CLIPPER_MODEL_PATH": str(path)})


def check(container, path, **inputs):
    """Compares in batches of one and of many."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    rows = len(next(iter(inputs.values())))
    for batch in (slice(0, rows), slice(0, 1), slice(rows - 1, rows)):
        feed = {name: np.asarray(values[batch]) for name, values in inputs.items()}
        encoded, _ = tensors.encode({name: values[batch] for name, values in inputs.items()}, len(feed[next(iter(feed))]))
        response = container.predict(*encoded, rows=len(feed[next(iter(feed))]))
        assert not response.HasField("error"), response.error
        assert [output.name for output in response.outputs] == names
        for output, want in zip(response.outputs, session.run(None, feed)):
            got = tensors.decode(PredictRequest(rows=len(want), inputs=[output]))
            np.testing.assert_array_equal(np.asarray(got), want.astype(str) if want.dtype == object else want)
            if want.dtype != object:
                assert got.dtype == want.dtype


def test_labels_and_probabilities(tmp_path):
    path = softmax(tmp_path)
    with serve(tmp_path, path).wait_until_serving() as container:
        check(container, path, x=ROWS)
        described = container.stub.Describe(DescribeRequest())
        (taken,), (label, probabilities) = described.signature.inputs, described.signature.outputs
        assert (taken.name, taken.data_type, list(taken.shape)) == ("x", tensor_pb2.DATA_TYPE_FLOAT32, [4])
        assert (label.name, label.data_type, list(label.shape)) == ("label", tensor_pb2.DATA_TYPE_STRING, [])
        assert (probabilities.name, probabilities.data_type, list(probabilities.shape)) == ("probabilities", tensor_pb2.DATA_TYPE_FLOAT32, [3])
        assert dict(described.properties)["framework"] == f"onnxruntime {onnxruntime.__version__}"


def test_several_inputs_of_several_types(tmp_path):
    nodes = [
        helper.make_node("LabelEncoder", ["city"], ["home"], domain="ai.onnx.ml", keys_strings=["Oslo", "Łódź"], values_int64s=[3, 5], default_int64=-1),
        helper.make_node("Mul", ["age", "home"], ["product"]),
        helper.make_node("Cast", ["height"], ["narrow"], to=TensorProto.FLOAT16),
        helper.make_node("Not", ["member"], ["stranger"]),
    ]
    inputs = [
        ("city", TensorProto.STRING, ["n"]),
        ("age", TensorProto.INT64, ["n"]),
        ("height", TensorProto.DOUBLE, ["n", "any"]),
        ("member", TensorProto.BOOL, ["n"]),
    ]
    outputs = [("product", TensorProto.INT64, ["n"]), ("narrow", TensorProto.FLOAT16, ["n", "any"]), ("stranger", TensorProto.BOOL, ["n"])]
    path = save(tmp_path, nodes, inputs, outputs)
    with serve(tmp_path, path).wait_until_serving() as container:
        check(container, path, city=["Oslo", "Łódź", "", "Rome"], age=np.arange(4), height=RANDOM.normal(size=(4, 2)), member=np.array([True, False, True, True]))
        assert [list(taken.shape) for taken in container.stub.Describe(DescribeRequest()).signature.inputs] == [[], [], [-1], []]


def test_text(tmp_path):
    path = save(tmp_path, [helper.make_node("Identity", ["x"], ["y"])], [("x", TensorProto.STRING, ["n", 2])], [("y", TensorProto.STRING, ["n", 2])])
    with serve(tmp_path, path).wait_until_serving() as container:
        check(container, path, x=[["good", "film"], ["", "zażółć"], ["long " * 1000, "x"]])
        # In Python a text ends at its first zero character.
        assert container.outputs([["a\0b", "c"]]) == [["a\0b", "c"]]


def test_every_type_of_numbers(tmp_path):
    """Outputs are computed, and inputs given back as they are: many rows, so that sending takes longer than predicting."""
    types = [np.bool_, np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int32, np.int64, np.float16, np.float32, np.float64]
    inputs = {np.dtype(t).name: RANDOM.integers(0, 100, (50000, 2, 3)).astype(t) for t in types}
    infos = [(name, helper.np_dtype_to_tensor_dtype(values.dtype), ["n", 2, 3]) for name, values in inputs.items()]
    nodes = [helper.make_node("Transpose", [name], [name + "s"], perm=[0, 2, 1]) for name in inputs]
    path = save(tmp_path, nodes, infos, [(name + "s", kind, ["n", 3, 2]) for name, kind, _ in infos] + infos)
    with serve(tmp_path, path).wait_until_serving() as container:
        check(container, path, **inputs)


def test_a_batch_dimension_of_one(tmp_path):
    path = softmax(tmp_path, batch=1)
    with serve(tmp_path, path).wait_until_serving() as container:
        check(container, path, x=ROWS[:1])
        assert container.stub.Describe(DescribeRequest()).max_batch_rows == 1


def test_bad_batches(tmp_path):
    """Of a wrong shape, of a wrong type, of rows that differ, and one that ONNX Runtime fails at."""
    nodes = [helper.make_node("Gather", ["table", "i"], ["y"])]
    path = save(tmp_path, nodes, [("i", TensorProto.INT64, ["n", "any"])], [("y", TensorProto.FLOAT, ["n", "any", 3])], [("table", WEIGHTS)])
    good = np.array([[0, 3], [1, 2]])
    with serve(tmp_path, path).wait_until_serving() as container:
        for rows, reason, complaint in (
            (np.arange(2), "INPUT_SHAPE", "the input 'i'"),
            (good.astype(float), "INPUT_TYPE", "the input 'i'"),
            ([[1, 2], [3]], "INPUT_SHAPE", "rows of different shapes"),
            ([[1, 2], [3, 4]], "MODEL_FAILED", "must be within the inclusive range [-4,3]"),
        ):
            (tensor,), _ = tensors.encode(rows, 2)
            error = container.predict(tensor, rows=2).error
            assert error_pb2.ErrorReason.Name(error.reason) == f"ERROR_REASON_{reason}"
            assert complaint in error.message
            check(container, path, i=good)
        check(container, path, i=good[:, :0])


def test_conformance(tmp_path):
    with serve(tmp_path, softmax(tmp_path)).wait_until_serving() as container:
        container.conforms(ROWS[0].tolist(), ROWS[1].tolist())


@pytest.mark.parametrize("spoil", ["missing", "empty", "truncated", "text"])
def test_files_that_can_never_be_served(tmp_path, spoil):
    path = softmax(tmp_path)
    if spoil == "missing":
        path.unlink()
    elif spoil == "empty":
        path.write_bytes(b"")
    elif spoil == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
    elif spoil == "text":
        path.write_text("weights: 1, 2, 3")
    never(tmp_path, path, "expected an ONNX model of tensors")


def test_models_of_a_later_version(tmp_path):
    path = softmax(tmp_path)
    model = onnx.load(path)
    model.ir_version = 1000
    onnx.save(model, path)
    never(tmp_path, path, "expected an ONNX model of tensors")


def test_a_batch_dimension_of_eight(tmp_path):
    never(tmp_path, softmax(tmp_path, batch=8), "first dimension is the batch")


def test_an_output_that_is_no_tensor(tmp_path):
    node = helper.make_node("ZipMap", ["x"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2, 3])
    graph = helper.make_graph([node], "model", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])], [helper.make_empty_tensor_value_info("maps")])
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])))
    graph.output[0].type.CopyFrom(kind)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    never(tmp_path, tmp_path / "model.onnx", "no tensor whose first dimension")


def never(folder, path, expected):
    with serve(folder, path) as container:
        assert container.process.wait(60) == 78, container.log()
        last = container.log().splitlines()[-1]
        assert str(path) in last
        assert expected in last


def test_too_little_memory(tmp_path):
    # The constant, of 8 GiB, is made when the model is loaded.
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    value = ("x", TensorProto.FLOAT, ["batch", 4]), ("y", TensorProto.FLOAT, ["batch", 4])
    path = save(tmp_path, nodes, value[:1], value[1:], [("shape", np.array([1 << 31], np.int64))])
    limited = ("-c", 'ulimit -v 3000000; exec "$@"', "sh", str(ADAPTER))
    with ContainerProcess(Path("/bin/sh"), tmp_path, *limited, environment={"CLIPPER_MODEL_PATH": str(path)}) as container:
        assert container.process.wait(PATIENCE) == 1, container.log()
        assert f"not enough memory to load {path}" in container.log().splitlines()[-1]
