# SPDX-License-Identifier: Apache-2.0
"""Arrays and plain values as inputs and outputs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from clipper_proto.v1 import tensor_pb2

import clipper
from clipper.tensors import to_input, to_value

NUMBERS = ["?", "u1", "<u2", "<u4", "<u8", "i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8"]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", NUMBERS)
def test_numbers_come_back(dtype, order):
    array = np.arange(6).reshape(2, 3).astype(np.dtype(dtype).newbyteorder(order))
    back = clipper.to_numpy(clipper.to_tensor(array))
    assert back.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(
    "array",
    [np.zeros((0, 3)), np.arange(12).reshape(3, 4).T, np.arange(10)[::2], np.float32(1.5), np.array(7)],
    ids=["empty", "transposed", "strided", "scalar", "no dimension"],
)
def test_any_layout_comes_back(array):
    back = clipper.to_numpy(clipper.to_tensor(array))
    assert back.shape == np.shape(array)
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(
    "value, elements",
    [
        ("a\0", ["a\0"]),
        (["a", "bc"], ["a", "bc"]),
        (np.array(["a", "bc"]), ["a", "bc"]),
        (b"a\0", [b"a\0"]),
        ([[b"\0"], [b""]], [b"\0", b""]),
    ],
)
def test_text_and_bytes_come_back(value, elements):
    back = clipper.to_numpy(clipper.to_tensor(value))
    assert back.ravel().tolist() == elements
    assert back.shape == np.shape(value)


def test_bfloat16_is_rounded_to_even():
    exact = np.float32([1, -2.5, np.inf])
    np.testing.assert_array_equal(clipper.to_numpy(clipper.bfloat16(exact)), exact)
    halfway = np.float32([1 + 2**-8, 1 + 3 * 2**-8])
    np.testing.assert_array_equal(clipper.to_numpy(clipper.bfloat16(halfway)), np.float32([1, 1 + 2**-6]))
    assert np.isnan(clipper.to_numpy(clipper.bfloat16([np.nan])))[0]


@pytest.mark.parametrize("value", [np.array([1, "a"], dtype=object), np.array(["2026-01-01"], dtype="M8[D]"), np.array([1j])])
def test_what_is_no_tensor(value):
    with pytest.raises(TypeError):
        clipper.to_tensor(value)


def test_a_tensor_that_lies():
    with pytest.raises(ValueError):
        clipper.to_numpy(tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_INT64, shape=[2], data=b"\0" * 8))
    with pytest.raises(ValueError, match="no type"):
        clipper.to_numpy(tensor_pb2.Tensor(shape=[0]))


def test_plain_values_are_json():
    tensors, text = to_input({"n": [1, 2.5], "s": "é", "b": b"\0\1", "flag": True})
    assert not tensors
    assert json.loads(text) == {"n": [1, 2.5], "s": "é", "b": {"b64": "AAE="}, "flag": True}


def test_named_arrays_are_tensors():
    tensors, text = to_input({"image": np.zeros((2, 2)), "caption": "a cat", "half": clipper.bfloat16([1])})
    assert not text
    assert [(t.name, t.data_type, list(t.shape)) for t in tensors] == [
        ("image", tensor_pb2.DATA_TYPE_FLOAT64, [2, 2]),
        ("caption", tensor_pb2.DATA_TYPE_STRING, []),
        ("half", tensor_pb2.DATA_TYPE_BFLOAT16, [1]),
    ]


@pytest.mark.parametrize("value, says", [(float("nan"), "not JSON compliant"), ([np.zeros(2)], "np.stack"), (object(), "object is no input")])
def test_what_is_no_input(value, says):
    with pytest.raises((TypeError, ValueError), match=says):
        to_input(value)


@pytest.mark.parametrize("value", [True, 7, 1.5, "text", b"\0"])
def test_a_scalar_comes_back_as_python_has_it(value):
    back = to_value(clipper.to_tensor(value))
    assert (type(back), back) == (type(value), value)
