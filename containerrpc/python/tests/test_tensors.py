# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from clipper_proto.v1 import error_pb2, tensor_pb2
from clipper_proto.v1.model_container_service_pb2 import BatchTensor, PredictRequest, Shape

from clipper_container import RowError, spec, tensors
from clipper_container.errors import MAX_MESSAGE, BatchError, to_message

NUMBERS = ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


def decode(rows, *inputs):
    # As received: what the wire does not carry is not there.
    return tensors.decode(PredictRequest.FromString(PredictRequest(rows=rows, inputs=inputs).SerializeToString()))


def round_trip(values, rows):
    (tensor,), failed = tensors.encode(values, rows)
    assert not failed
    return decode(rows, tensor)


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 3)])
@pytest.mark.parametrize("rows", [1, 3])
def test_arrays_come_back_as_they_were(dtype, shape, rows):
    array = np.arange(rows * int(np.prod(shape))).reshape(rows, *shape).astype(dtype)
    back = round_trip(array, rows)
    assert back.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(back, array)


def test_an_array_is_a_view_of_the_received_bytes():
    array = round_trip(np.arange(6.0).reshape(2, 3), 2)
    assert not array.flags.owndata
    assert not array.flags.writeable
    assert array.flags.c_contiguous


@pytest.mark.parametrize(
    "array",
    [np.arange(6, dtype=">i4").reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(12.0).reshape(2, 6)[:, ::2]],
    ids=["big-endian", "column-major", "strided"],
)
def test_any_memory_layout_is_encoded(array):
    np.testing.assert_array_equal(round_trip(array, 2), array)


@pytest.mark.parametrize(
    "values",
    [
        ["a", "", "ü€\0x"],
        [b"\x00\xff", b"", b"tail\x00"],
        [["a", "b"], ["c", "d"]],
        [[b"a\x00", b"b"], [b"c", b"d"]],
        [["a"], ["b", "c"], []],
        [[["a", "b"]], [["c", "d"]]],
    ],
)
def test_strings_come_back_as_they_were(values):
    if [] in values:  # an empty list has no type of its own
        values = [np.array(v, dtype=str) for v in values]
        assert round_trip(values, len(values)) == [["a"], ["b", "c"], []]
    else:
        assert round_trip(values, len(values)) == values


@pytest.mark.parametrize("array", [np.array(["x", "yy"]), np.array(["x", "yy"], dtype=object)])
def test_arrays_of_strings(array):
    assert round_trip(array, 2) == ["x", "yy"]


def test_ragged_rows_are_a_list_of_arrays():
    rows = [np.arange(3.0), np.arange(0.0), np.arange(4.0).reshape(2, 2), np.float64(5)]
    back = round_trip(rows, 4)
    assert [a.shape for a in back] == [(3,), (0,), (2, 2), ()]
    for a, b in zip(back, rows):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([1, 2], "int64"), ([1.5, 2], "float64"), ([True, False], "bool"), ([[1, 2], [3, 4]], "int64"), ((1, 2), "int64"), ([np.float32(1), np.float32(2)], "float32")],
)
def test_lists_of_numbers(values, dtype):
    back = round_trip(values, 2)
    assert back.dtype == np.dtype(dtype)
    assert back.tolist() == [list(v) if isinstance(v, list) else v for v in values]


def test_bfloat16_becomes_float32():
    upper = (np.array([1.0, -2.5, 0.0], dtype="<f4").view("<u4") >> 16).astype("<u2")
    back = decode(3, BatchTensor(data_type=tensor_pb2.DATA_TYPE_BFLOAT16, data=upper.tobytes()))
    assert back.dtype == np.float32
    assert back.tolist() == [1.0, -2.5, 0.0]


def test_several_inputs_and_outputs_go_by_name():
    columns, failed = tensors.encode({"age": [3, 4], "name": ["a", "b"]}, 2)
    assert not failed
    back = decode(2, *columns)
    assert list(back) == ["age", "name"]
    assert back["age"].tolist() == [3, 4]
    assert back["name"] == ["a", "b"]


def tensor(data=b"", data_type=tensor_pb2.DATA_TYPE_FLOAT32, **more):
    return BatchTensor(data_type=data_type, data=data, **more)


@pytest.mark.parametrize(
    ("rows", "inputs", "field", "words"),
    [
        (0, [tensor(bytes(4))], "rows", "at least one row"),
        (1, [], "inputs", "no input tensor"),
        (2, [tensor(bytes(4))], "inputs[0].data", "4 bytes where the shapes need 8"),
        (1, [tensor(bytes(9), shape=[2])], "inputs[0].data", "need 8"),
        (1, [tensor(bytes(4), data_type=99)], "inputs[0].data_type", "99"),
        (1, [tensor(bytes(4), data_type=0)], "inputs[0].data_type", "0"),
        (1, [tensor(bytes(4), shape=[-1])], "inputs[0].shape", "negative"),
        (1, [tensor(bytes(4), shape=[1 << 62, 1 << 62])], "inputs[0].data", "4 bytes"),
        (2, [tensor(bytes(4), row_shapes=[Shape(dims=[1])])], "inputs[0].row_shapes", "1 row shapes for 2 rows"),
        (1, [tensor(bytes(4), shape=[1], row_shapes=[Shape(dims=[1])])], "inputs[0].shape", "shape of its own"),
        (1, [tensor(bytes(4), row_shapes=[Shape(dims=[-1])])], "inputs[0].row_shapes", "negative"),
        (2, [tensor(data_type=tensor_pb2.DATA_TYPE_STRING, strings=["a"])], "inputs[0].strings", "1 elements where the shapes need 2"),
        (1, [tensor(data_type=tensor_pb2.DATA_TYPE_BYTES, byte_strings=[b"a", b"b"])], "inputs[0].byte_strings", "2 elements"),
        (1, [tensor(bytes(4), name="a"), tensor(bytes(4), name="a")], "inputs[1].name", "repeated"),
        (1, [tensor(bytes(4), name="a"), tensor(bytes(4))], "inputs[1].name", "empty"),
    ],
)
def test_malformed_batches_are_refused(rows, inputs, field, words):
    with pytest.raises(BatchError, match=words.replace("[", r"\[")) as e:
        decode(rows, *inputs)
    message = to_message(e.value)
    assert (message.code, message.reason, message.field) == (3, error_pb2.ERROR_REASON_INVALID_FIELD, field)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1, 2, 3], "has 3 rows for a batch of 2"),
        (np.zeros((1, 2)), "has 1 rows for a batch of 2"),
        (None, "of type NoneType"),
        ("ab", "of type str"),
        (3.0, "of type float"),
        (np.float64(3), "of type float64"),
        (np.array(3.0), "is a scalar"),
        (np.zeros(2, complex), "complex128, which no tensor can hold"),
        (np.zeros(2, "datetime64[s]"), "no tensor can hold"),
        ([1, "a"], "numbers and text in one batch"),
        (["a", b"a"], "bytes and text in one batch"),
        ([None, None], "row of type NoneType"),
        ([{}, {}], "row of type dict"),
        ([2**70, 1], "no tensor can hold"),
        ({}, "empty dict"),
        ({"a": [1, 2], "b": [1]}, "the output 'b' has 1 rows"),
        ({1: [1, 2]}, "names are strings"),
    ],
)
def test_outputs_that_no_tensor_can_hold(values, words):
    with pytest.raises(BatchError, match=words) as e:
        tensors.encode(values, 2)
    assert to_message(e.value).reason == error_pb2.ERROR_REASON_MODEL_PROTOCOL


@pytest.mark.parametrize(
    ("values", "back"),
    [
        ([1.5, RowError("bad"), 2.5], [1.5, 0.0, 2.5]),
        (["a", RowError("bad"), "c"], ["a", "", "c"]),
        ([b"a", RowError("bad"), b"c"], [b"a", b"", b"c"]),
        ([np.ones(2), RowError("bad"), np.ones(2)], [[1, 1], [0, 0], [1, 1]]),
        ([["a", "b"], RowError("bad"), ["c", "d"]], [["a", "b"], ["", ""], ["c", "d"]]),
    ],
)
def test_a_failed_row_keeps_its_place(values, back):
    (column,), failed = tensors.encode(values, 3)
    assert {row: str(e) for row, e in failed.items()} == {1: "bad"}
    assert np.asarray(decode(3, column)).tolist() == np.asarray(back).tolist()


def test_all_rows_may_fail():
    columns, failed = tensors.encode({"text": [RowError("a"), RowError("b")]}, 2)
    assert sorted(failed) == [0, 1]
    assert columns == [], "a column of another type than the signature's would be the model's fault"


def test_a_row_that_fails_in_one_output_fails():
    columns, failed = tensors.encode({"a": [1, RowError("bad")], "b": np.ones(2)}, 2)
    assert list(failed) == [1]
    assert [len(v) for v in decode(2, *columns).values()] == [2, 2]


def test_frameworks_that_numpy_can_read():
    class Framework:
        def __array__(self, dtype=None, copy=None):
            return np.array([1.0, 2.0])

    assert round_trip(Framework(), 2).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        ({}, tensor_pb2.TensorSpec()),
        ({"dtype": "float32", "shape": [-1, 3], "name": "x"}, tensor_pb2.TensorSpec(name="x", data_type=12, shape=[-1, 3])),
        ({"dtype": np.int64}, tensor_pb2.TensorSpec(data_type=9)),
        ({"dtype": np.dtype(">f8")}, tensor_pb2.TensorSpec(data_type=13)),
        ({"dtype": str}, tensor_pb2.TensorSpec(data_type=14)),
        ({"dtype": "string"}, tensor_pb2.TensorSpec(data_type=14)),
        ({"dtype": np.dtype("U7")}, tensor_pb2.TensorSpec(data_type=14)),
        ({"dtype": bytes}, tensor_pb2.TensorSpec(data_type=15)),
        ({"dtype": "bfloat16"}, tensor_pb2.TensorSpec(data_type=11)),
        ({"dtype": object, "shape": None}, tensor_pb2.TensorSpec(any_shape=True)),
    ],
)
def test_spec(arguments, want):
    assert spec(**arguments) == want


def test_spec_of_a_type_without_tensors():
    with pytest.raises(TypeError, match="complex128"):
        spec(complex)


def test_messages_are_bounded():
    assert len(to_message(ValueError("x" * 10_000)).message) == MAX_MESSAGE
