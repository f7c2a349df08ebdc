# SPDX-License-Identifier: Apache-2.0
"""Batches of tensors to and from what Python models work with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

import numpy as np
from clipper_proto.v1 import model_container_service_pb2 as container_pb2
from clipper_proto.v1 import tensor_pb2

from clipper_container.errors import RowError, bad_output, invalid

STRING, BYTES, BFLOAT16 = tensor_pb2.DATA_TYPE_STRING, tensor_pb2.DATA_TYPE_BYTES, tensor_pb2.DATA_TYPE_BFLOAT16

_DTYPES: dict[tensor_pb2.DataType, np.dtype[Any]] = {
    tensor_pb2.DATA_TYPE_BOOL: np.dtype("?"),
    tensor_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    tensor_pb2.DATA_TYPE_UINT16: np.dtype("<u2"),
    tensor_pb2.DATA_TYPE_UINT32: np.dtype("<u4"),
    tensor_pb2.DATA_TYPE_UINT64: np.dtype("<u8"),
    tensor_pb2.DATA_TYPE_INT8: np.dtype("i1"),
    tensor_pb2.DATA_TYPE_INT16: np.dtype("<i2"),
    tensor_pb2.DATA_TYPE_INT32: np.dtype("<i4"),
    tensor_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
    tensor_pb2.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    tensor_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.DATA_TYPE_FLOAT64: np.dtype("<f8"),
}
_DATA_TYPES = {dtype: data_type for data_type, dtype in _DTYPES.items()}

Input = Union["np.ndarray[Any, Any]", list[Any]]


def spec(dtype: Any = None, shape: Optional[Sequence[int]] = (), name: str = "") -> tensor_pb2.TensorSpec:
    """Says what one input or output of one row looks like.

    dtype is whatever numpy takes for one ("float64", np.int32), "string" or str, "bytes" or bytes;
    None, or numpy's object, accepts any. shape is the shape of one row, without a batch dimension:
    () is a scalar, -1 accepts any length, None accepts any shape. name is needed when there are
    several.
    """
    return tensor_pb2.TensorSpec(name=name, data_type=_data_type(dtype), shape=shape or (), any_shape=shape is None)


def _data_type(dtype: Any) -> tensor_pb2.DataType:
    if dtype is None:
        return tensor_pb2.DATA_TYPE_UNSPECIFIED
    if isinstance(dtype, str) and dtype in ("string", "bytes", "bfloat16"):
        return {"string": STRING, "bytes": BYTES, "bfloat16": BFLOAT16}[dtype]
    dtype = np.dtype(dtype)
    if dtype.kind == "O":
        return tensor_pb2.DATA_TYPE_UNSPECIFIED
    found = _type_of(dtype)
    if found is None:
        raise TypeError(f"no tensor has elements of type {dtype}")
    return found


def _type_of(dtype: np.dtype[Any]) -> Optional[tensor_pb2.DataType]:
    if dtype.kind in "US":
        return STRING if dtype.kind == "U" else BYTES
    if dtype.name == "bfloat16":  # of the package ml_dtypes; numpy has none of its own
        return BFLOAT16
    return _DATA_TYPES.get(dtype.newbyteorder("<"))


def decode(request: container_pb2.PredictRequest) -> Union[Input, dict[str, Input]]:
    """Returns the inputs of a batch: the only one as it is, several as a dict by name.

    A tensor whose rows have one shape is an array of shape [rows, shape...] over the received
    bytes, without a copy and read-only (bfloat16, which numpy lacks, becomes float32). Rows of
    different shapes are a list of such arrays. Strings and byte strings are lists, nested as their
    shape is.
    """
    if request.rows == 0:
        raise invalid("rows is 0; a batch has at least one row", "rows")
    if not request.inputs:
        raise invalid("the batch has no input tensor", "inputs")
    if len(request.inputs) == 1:
        return _decode(request.inputs[0], request.rows, "inputs[0]")
    inputs = {}
    for i, tensor in enumerate(request.inputs):
        if not tensor.name or tensor.name in inputs:
            raise invalid(f"the name {tensor.name!r} is empty or repeated; of several inputs each has its own", f"inputs[{i}].name")
        inputs[tensor.name] = _decode(tensor, request.rows, f"inputs[{i}]")
    return inputs


def _decode(tensor: container_pb2.BatchTensor, rows: int, field: str) -> Input:
    ragged = [tuple(s.dims) for s in tensor.row_shapes]
    if ragged and len(ragged) != rows:
        raise invalid(f"{len(ragged)} row shapes for {rows} rows", field + ".row_shapes")
    if ragged and tensor.shape:
        raise invalid("shape is set although every row has a shape of its own", field + ".shape")
    shapes = ragged or [tuple(tensor.shape)]
    if any(d < 0 for shape in shapes for d in shape):
        raise invalid("a dimension is negative", field + (".row_shapes" if ragged else ".shape"))
    sizes = [math.prod(shape) for shape in shapes]
    count = sum(sizes) if ragged else rows * sizes[0]

    elements: Any
    if tensor.data_type in (STRING, BYTES):
        name, values = ("strings", tensor.strings) if tensor.data_type == STRING else ("byte_strings", tensor.byte_strings)
        if len(values) != count:
            raise invalid(f"{len(values)} elements where the shapes need {count}", f"{field}.{name}")
        if not ragged and not tensor.shape:
            return list(values)
        elements = np.empty(count, object)
        elements[:] = values
    else:
        dtype = np.dtype("<u2") if tensor.data_type == BFLOAT16 else _DTYPES.get(tensor.data_type)
        if dtype is None:
            raise invalid(f"data type {tensor.data_type} is not one of clipper.v1.DataType", field + ".data_type")
        data = tensor.data
        if len(data) != count * dtype.itemsize:
            raise invalid(f"{len(data)} bytes where the shapes need {count * dtype.itemsize}", field + ".data")
        elements = np.frombuffer(data, dtype)
        if tensor.data_type == BFLOAT16:  # the upper half of a float32
            elements = (elements.astype("<u4") << 16).view("<f4")
    if not ragged:
        array: np.ndarray[Any, Any] = elements.reshape(rows, *shapes[0])
        return list(array.tolist()) if array.dtype == object else array
    ends = np.cumsum(sizes)
    arrays = [elements[end - size : end].reshape(shape) for shape, size, end in zip(shapes, sizes, ends)]
    return [a.tolist() for a in arrays] if elements.dtype == object else arrays


def encode(outputs: Any, rows: int) -> tuple[list[container_pb2.BatchTensor], dict[int, RowError]]:
    """Returns what a model gave for a batch as tensors, and the rows that failed.

    outputs is one output, or a dict of several by name. An output has an entry for each row: an
    array whose first dimension is the rows, or a list of numbers, strings, byte strings, arrays
    (of one shape or of different ones), or RowErrors.
    """
    failed: dict[int, RowError] = {}
    named = outputs if isinstance(outputs, Mapping) else {"": outputs}
    if not named:
        raise bad_output("predict returned an empty dict; it has an entry for each output")
    columns = {name: _rows(name, values, rows) for name, values in named.items()}
    for values in columns.values():
        if isinstance(values, list):
            failed.update((i, v) for i, v in enumerate(values) if isinstance(v, RowError) and i not in failed)
    if len(failed) == rows:  # No row says of what type it would have been.
        return [], failed
    return [_encode(name, values, failed) for name, values in columns.items()], failed


def _rows(name: str, values: Any, rows: int) -> Any:
    """Returns the rows as an array of a type that a tensor has, or as a list."""
    if values is None or isinstance(values, RowError) or np.isscalar(values):
        raise bad_output(f"{_named(name)}is of type {type(values).__name__}; it must have an entry for each of the {rows} rows")
    if hasattr(values, "__array__"):  # numpy's own, and what other frameworks let it see
        values = np.asarray(values)
        if values.ndim == 0:
            raise bad_output(f"{_named(name)}is a scalar; it must have an entry for each of the {rows} rows")
        if values.dtype == object:
            values = list(values)
    elif not isinstance(values, list):
        values = list(values)
    if len(values) != rows:
        raise bad_output(f"{_named(name)}has {len(values)} rows for a batch of {rows}")
    return values


def _named(name: str) -> str:
    return f"the output {name!r} " if name else "the output "


def _encode(name: str, values: Any, failed: Mapping[int, RowError]) -> container_pb2.BatchTensor:
    if not isinstance(name, str):
        raise bad_output(f"an output has the name {name!r}; names are strings")
    if isinstance(values, np.ndarray):
        return _tensor(name, values.shape[1:], values)
    good = [v for i, v in enumerate(values) if i not in failed]
    if good and all(type(v) is str for v in good):  # by far the most frequent lists: labels
        return container_pb2.BatchTensor(name=name, data_type=STRING, strings=["" if i in failed else v for i, v in enumerate(values)])
    if not failed and values and isinstance(values[0], (int, float)):  # the next: numbers
        array = np.asarray(values)
        if array.dtype.kind in "biuf":
            return _tensor(name, array.shape[1:], array)
    arrays = [_array(name, v) for v in good]
    # What stands in the place of a row that failed has the shape and type of the others.
    like = arrays[0] if arrays else np.zeros(())
    filler = np.full(like.shape, b"", object) if like.dtype == object else np.zeros(like.shape, like.dtype)
    remaining = iter(arrays)
    arrays = [filler if i in failed else next(remaining) for i in range(len(values))]
    kinds = {"text" if a.dtype.kind == "U" else "bytes" if a.dtype.kind in "SO" else "numbers" for a in arrays}
    if len(kinds) > 1:
        raise bad_output(f"{_named(name)}has {' and '.join(sorted(kinds))} in one batch; a tensor has one type")
    if len({a.shape for a in arrays}) == 1:
        return _tensor(name, like.shape, np.stack(arrays))
    return _tensor(name, None, np.concatenate([a.ravel() for a in arrays]), [a.shape for a in arrays])


def _array(name: str, value: Any) -> np.ndarray[Any, Any]:
    """Returns one row; byte strings become objects, since numpy's own type drops zeros at the end."""
    if isinstance(value, bytes):
        array = np.empty((), object)
        array[()] = value
        return array
    try:
        array = np.asarray(value)
    except ValueError as e:
        raise bad_output(f"{_named(name)}has a row that is no array: {e}") from None
    if array.dtype.kind == "S" and not isinstance(value, np.ndarray):
        array = np.asarray(value, object)
    if array.dtype == object:
        flat = array.ravel().tolist()
        if flat and all(isinstance(v, str) for v in flat):
            return array.astype(str)
        if not flat or not all(isinstance(v, bytes) for v in flat):
            raise bad_output(f"{_named(name)}has a row of type {type(value).__name__}, which no tensor can hold")
    return array


def _tensor(
    name: str,
    shape: Optional[Sequence[int]],
    elements: np.ndarray[Any, Any],
    row_shapes: Sequence[Sequence[int]] = (),
) -> container_pb2.BatchTensor:
    """Returns the tensor of all rows; shape is None when each row has its own in row_shapes."""
    data_type = BYTES if elements.dtype == object else _type_of(elements.dtype)
    if data_type is None:
        raise bad_output(f"{_named(name)}has elements of type {elements.dtype}, which no tensor can hold")
    tensor = container_pb2.BatchTensor(name=name, data_type=data_type, shape=shape or ())
    for dims in row_shapes:
        tensor.row_shapes.add(dims=dims)
    if data_type == STRING:
        tensor.strings.extend(elements.ravel().tolist())
    elif data_type == BYTES:
        tensor.byte_strings.extend(elements.ravel().tolist())
    else:
        tensor.data = elements.astype(elements.dtype.newbyteorder("<"), copy=False).tobytes()
    return tensor
