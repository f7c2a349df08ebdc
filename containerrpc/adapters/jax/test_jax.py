# SPDX-License-Identifier: Apache-2.0
"""Served predictions are the framework's own, value for value."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clipper_proto.v1 import tensor_pb2
from clipper_proto.v1.model_container_service_pb2 import DescribeRequest, PredictRequest
from jax import ShapeDtypeStruct, export

from clipper_container import tensors
from clipper_container.testing import PATIENCE, ContainerProcess, deployed

ADAPTER = Path(__file__).with_name("adapter.py")

jax.config.update("jax_enable_x64", True)
RANDOM = np.random.default_rng(1)
ROWS = RANDOM.normal(size=(64, 4)).astype(np.float32)
FIRST = RANDOM.normal(size=(4, 8)).astype(np.float32)
SECOND = RANDOM.normal(size=(8, 3)).astype(np.float32)
B, LENGTH = export.symbolic_shape("b, length")
FOUR = ShapeDtypeStruct((B, 4), np.float32)


def classify(x):
    """Three classes of four numbers."""
    return jax.nn.softmax(jax.nn.relu(x @ FIRST) @ SECOND)


def save(folder, function, *arguments, platforms=None, **named):
    path = folder / "model.jax"
    path.write_bytes(export.export(jax.jit(function), platforms=platforms)(*arguments, **named).serialize())
    return path


def serve(folder, path):
    return ContainerProcess(ADAPTER, folder, environment={"CLIPPER_MODEL_PATH": str(path)})


def predict(container, inputs, batch=slice(None)):
    """Returns the outputs by name for some rows of the inputs, which are by name."""
    taken = {name: values[batch] for name, values in inputs.items()}
    rows = len(next(iter(taken.values())))
    encoded, _ = tensors.encode(taken, rows)
    response = container.predict(*encoded, rows=rows)
    assert not response.HasField("error"), response.error
    return {o.name: (o.data_type, tensors.decode(PredictRequest(rows=rows, inputs=[o]))) for o in response.outputs}


def same(got, want):
    assert got.keys() == want.keys()
    for name, array in want.items():
        data_type, values = got[name]
        assert data_type == tensors.spec(array.dtype).data_type
        np.testing.assert_array_equal(values, np.asarray(array).astype(values.dtype))


def signature(container):
    described = container.stub.Describe(DescribeRequest()).signature
    return [{s.name: (s.data_type, list(s.shape)) for s in side} for side in (described.inputs, described.outputs)]


@pytest.fixture(scope="module")
def container(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with serve(folder, save(folder, classify, FOUR)).wait_until_serving() as running:
        yield running


def test_a_classifier(container):
    own = jax.jit(classify)
    for batch in (slice(0, 64), slice(0, 1), slice(8, 16), slice(63, 64)):
        same(predict(container, {"": ROWS}, batch), {"": own(ROWS[batch])})
    # A batch that is filled up may be multiplied in another order, which can change the last bits.
    filled = predict(container, {"": ROWS}, slice(0, 13))[""][1]
    assert filled.shape == (13, 3)
    np.testing.assert_allclose(filled, own(ROWS[:13]), rtol=1e-6)
    number = tensor_pb2.DATA_TYPE_FLOAT32
    assert signature(container) == [{"0": (number, [4])}, {"": (number, [3])}]
    assert container.stub.Describe(DescribeRequest()).properties["framework"] == f"jax {jax.__version__}"


def test_bad_batches(container):
    for rows, complaint in (
        (ROWS[:2, :3], "expected (b, 4) and called with (2, 3)"),
        (ROWS[:2].astype(float), "expected float32 and called with float64"),
        (["two", "words"], "numpy.ndarray"),
        ([[1.0, 2.0], [3.0]], "inhomogeneous shape"),
    ):
        (tensor,), _ = tensors.encode(rows, 2)
        assert complaint in container.predict(tensor, rows=2).error.message
    assert len(container.outputs(ROWS[:2])) == 2


def test_conformance(container):
    container.conforms(ROWS[0].tolist(), ROWS[1].tolist())


def test_several_inputs_of_several_types(tmp_path):
    def visits(place, *, ages, member):
        return {"total": ages.sum(axis=1), "third": ages / 3, "brain": (ages.astype(jnp.bfloat16), ages.astype(jnp.float16)), "stranger": ~member, "x": place["x"] + place["y"]}

    arguments = {
        "ages": ShapeDtypeStruct((B, LENGTH), np.int64),
        "member": ShapeDtypeStruct((B,), bool),
    }
    place = {axis: ShapeDtypeStruct((B,), np.float64) for axis in "xy"}
    with serve(tmp_path, save(tmp_path, visits, place, **arguments)).wait_until_serving() as container:
        x, y = RANDOM.normal(size=(2, 5))
        ages, member = np.arange(15).reshape(5, 3) + 2**40, np.array([True, False, True, True, False])
        # No sum here depends on its order: an odd batch has the very values too.
        for batch in (slice(0, 5), slice(0, 4), slice(4, 5)):
            want = jax.jit(visits)({"x": x[batch], "y": y[batch]}, ages=ages[batch], member=member[batch])
            first, second = want.pop("brain")
            got = predict(container, {"0/x": x, "0/y": y, "ages": ages, "member": member}, batch)
            same(got, {**want, "brain/0": first, "brain/1": second})
        assert signature(container)[0] == {
            "0/x": (tensor_pb2.DATA_TYPE_FLOAT64, []),
            "0/y": (tensor_pb2.DATA_TYPE_FLOAT64, []),
            "ages": (tensor_pb2.DATA_TYPE_INT64, [-1]),
            "member": (tensor_pb2.DATA_TYPE_BOOL, []),
        }
        encoded, _ = tensors.encode({"ages": ages, "member": member}, 5)
        assert "0/x" in container.predict(*encoded, rows=5).error.message


@pytest.mark.parametrize("spoil", ["missing", "empty", "truncated", "text", "damaged"])
def test_files_that_can_never_be_served(tmp_path, spoil):
    path = save(tmp_path, classify, FOUR)
    content = bytearray(path.read_bytes())
    if spoil == "missing":
        path.unlink()
    elif spoil == "empty":
        path.write_bytes(b"")
    elif spoil == "truncated":
        path.write_bytes(content[:-40])
    elif spoil == "text":
        path.write_text("weights: 1, 2, 3")
    elif spoil == "damaged":
        start = content.index(b"StableHLO") + 40
        content[start : start + 40] = bytes(40)
        path.write_bytes(content)
    never(tmp_path, path, "cannot load the model")


@pytest.mark.parametrize(
    ("function", "shape", "platforms", "complaint"),
    [
        (classify, (8, 4), None, "float32[8,4] has no free batch"),
        (jnp.mean, (B, 4), None, "float32[] has no free batch"),
        (classify, (B, 4), ["cuda"], "exported for platforms"),
    ],
    ids=["a fixed batch", "one output for all", "another platform"],
)
def test_functions_that_can_never_be_served(tmp_path, function, shape, platforms, complaint):
    never(tmp_path, save(tmp_path, function, ShapeDtypeStruct(shape, np.float32), platforms=platforms), complaint)


def never(folder, path, complaint):
    with serve(folder, path) as container:
        assert container.process.wait(PATIENCE) == 78, container.log()
        last = container.log().splitlines()[-1]
        assert str(path) in last
        assert complaint in last
        assert "expected a function serialized by jax.export for this platform" in last


def test_deployed(tmp_path):
    with deployed(ADAPTER, tmp_path, save(tmp_path, classify, FOUR), default=[0, 0, 0]) as ask:
        np.testing.assert_allclose(ask(ROWS[0].tolist()), classify(ROWS[:1])[0], rtol=1e-6)
