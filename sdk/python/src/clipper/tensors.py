# SPDX-License-Identifier: Apache-2.0
"""Tensors from and to numpy."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Union

import numpy as np
import numpy.typing as npt
from clipper_proto.v1 import tensor_pb2

Array = npt.NDArray[Any]
Value = Union[Array, bool, int, float, str, bytes]

_NUMPY = {
    tensor_pb2.DATA_TYPE_BOOL: "?",
    tensor_pb2.DATA_TYPE_UINT8: "u1",
    tensor_pb2.DATA_TYPE_UINT16: "<u2",
    tensor_pb2.DATA_TYPE_UINT32: "<u4",
    tensor_pb2.DATA_TYPE_UINT64: "<u8",
    tensor_pb2.DATA_TYPE_INT8: "i1",
    tensor_pb2.DATA_TYPE_INT16: "<i2",
    tensor_pb2.DATA_TYPE_INT32: "<i4",
    tensor_pb2.DATA_TYPE_INT64: "<i8",
    tensor_pb2.DATA_TYPE_FLOAT16: "<f2",
    tensor_pb2.DATA_TYPE_FLOAT32: "<f4",
    tensor_pb2.DATA_TYPE_FLOAT64: "<f8",
}
_TYPES = {np.dtype(name).newbyteorder("="): data_type for data_type, name in _NUMPY.items()}


def to_tensor(value: Any, name: str = "") -> tensor_pb2.Tensor:
    """Returns a tensor of an array, or of what numpy makes one of; its type is the array's.

    Text and bytes may be str, bytes or arrays of them. An array of ml_dtypes.bfloat16 becomes one of
    bfloat16. Raises TypeError for a type that no tensor has.
    """
    if isinstance(value, tensor_pb2.Tensor):
        return value
    array = np.asarray(value)
    if array.dtype.kind in "US" and not isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value, dtype=object)  # The types of numpy would cut zeros off.
    tensor = tensor_pb2.Tensor(name=name, shape=array.shape)
    if array.dtype.kind in "USTO":
        elements = array.ravel().tolist()
        if all(isinstance(e, str) for e in elements):
            tensor.data_type = tensor_pb2.DATA_TYPE_STRING
            tensor.strings.extend(elements)
        elif all(isinstance(e, bytes) for e in elements):
            tensor.data_type = tensor_pb2.DATA_TYPE_BYTES
            tensor.byte_strings.extend(elements)
        else:
            raise TypeError("an array of objects must have str only, or bytes only")
        return tensor
    if array.dtype.name == "bfloat16":
        tensor.data_type = tensor_pb2.DATA_TYPE_BFLOAT16
        tensor.data = array.view(np.uint16).astype("<u2").tobytes()
        return tensor
    native = array.dtype.newbyteorder("=")
    if native not in _TYPES:
        raise TypeError(f"no tensor has elements of numpy's type {array.dtype}")
    tensor.data_type = _TYPES[native]
    tensor.data = array.astype(_NUMPY[_TYPES[native]], copy=False).tobytes()
    return tensor


def bfloat16(values: Any, name: str = "") -> tensor_pb2.Tensor:
    """Returns a tensor of bfloat16 of an array of floats, rounded to even."""
    array = np.asarray(values, dtype="<f4")
    bits = array.view("<u4")
    rounded = np.where(np.isnan(array), bits, bits + (0x7FFF + (bits >> 16 & 1)))  # What is no number must not become infinity.
    data = (rounded >> 16).astype("<u2").tobytes()
    return tensor_pb2.Tensor(name=name, data_type=tensor_pb2.DATA_TYPE_BFLOAT16, shape=array.shape, data=data)


def to_numpy(tensor: tensor_pb2.Tensor) -> Array:
    """Returns a tensor as an array: strings and byte strings as objects, bfloat16 as float32.

    The array may share the tensor's memory and is then read-only. Raises ValueError when the tensor
    does not have the elements that its shape says.
    """
    shape = tuple(tensor.shape)
    if tensor.data_type == tensor_pb2.DATA_TYPE_STRING:
        return _objects(tensor.strings, shape)
    if tensor.data_type == tensor_pb2.DATA_TYPE_BYTES:
        return _objects(tensor.byte_strings, shape)
    if tensor.data_type == tensor_pb2.DATA_TYPE_BFLOAT16:
        wide = np.frombuffer(tensor.data, "<u2").astype("<u4") << 16
        return wide.view("<f4").reshape(shape)
    if tensor.data_type not in _NUMPY:
        raise ValueError(f"the tensor has no type that is known: {tensor.data_type}")
    return np.frombuffer(tensor.data, _NUMPY[tensor.data_type]).reshape(shape)


def _objects(elements: Sequence[Any], shape: tuple[int, ...]) -> Array:
    out = np.empty(len(elements), dtype=object)
    out[:] = list(elements)
    return out.reshape(shape)


def to_value(tensor: tensor_pb2.Tensor) -> Value:
    """Returns a tensor as Python has it: without dimensions a bool, int, float, str or bytes; else an array."""
    array = to_numpy(tensor)
    value: Value = array.item() if array.ndim == 0 else array
    return value


def to_input(value: Any) -> tuple[list[tensor_pb2.Tensor], bytes]:
    """Returns an input as tensors, or else as JSON text.

    Arrays, and tensors, are sent as they are. Everything else, a number, a text, bytes, lists of them,
    is read by Clipper as the application's signature says. Named inputs are a dict, of one or the
    other. Raises TypeError for what is neither.
    """
    if isinstance(value, (np.ndarray, np.generic, tensor_pb2.Tensor)):
        return [to_tensor(value)], b""
    if isinstance(value, Mapping) and any(isinstance(v, (np.ndarray, np.generic, tensor_pb2.Tensor)) for v in value.values()):
        return [_named(v, k) for k, v in value.items()], b""
    try:
        return [], json.dumps(value, default=_encode, allow_nan=False, ensure_ascii=False).encode()
    except ValueError as e:
        raise ValueError(f"the input cannot be sent: {e}") from e


def _named(value: Any, name: str) -> tensor_pb2.Tensor:
    if isinstance(value, tensor_pb2.Tensor) and value.name != name:
        renamed = tensor_pb2.Tensor()
        renamed.CopyFrom(value)
        renamed.name = name
        return renamed
    return to_tensor(value, name)


def _encode(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray):
        raise TypeError("a list of arrays is no input: np.stack makes one array of them")
    raise TypeError(f"{type(value).__name__} is no input: want an array, numbers, text, bytes, lists of them, or a dict of named inputs")
