# SPDX-License-Identifier: Apache-2.0
"""Served predictions are the framework's own, value for value, and those that numpy computes."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from clipper_proto.v1.model_container_service_pb2 import DescribeRequest

from clipper_container import tensors
from clipper_container.testing import ContainerProcess, deployed

ADAPTER = Path(__file__).with_name("adapter.py")
LENET = Path(os.environ.get("CLIPPER_DATA", Path(__file__).parents[4] / "shared" / "data")) / "caffe"

needs_lenet = pytest.mark.skipif(not LENET.exists(), reason=f"CLIPPER_DATA has no LeNet: there is no folder {LENET}")

RANDOM = np.random.default_rng(1)
WEIGHTS, BIAS = RANDOM.normal(size=(3, 12)).astype(np.float32), RANDOM.normal(size=3).astype(np.float32)
IMAGES = RANDOM.integers(0, 256, (20, 2, 2, 3)).astype(np.uint8)

PROTOTXT = """
name: "small"
input: "data"
input_dim: 1
input_dim: 2
input_dim: 2
input_dim: 3
layer { name: "scores" type: "InnerProduct" bottom: "data" top: "scores" inner_product_param { num_output: 3 } }
layer { name: "probabilities" type: "Softmax" bottom: "scores" top: "probabilities" }
"""


def field(number, payload):
    """Encodes a field of bytes as protobuf does: a key, a length, the bytes."""
    length, size = b"", len(payload)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    # Keys have seven bits in a byte too.
    key = number << 3 | 2
    return (bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])) + length + bytes([size]) + payload


def blob(array):
    """Encodes a BlobProto: its shape is field 7, with packed dim 1; its data is field 5, packed."""
    return field(7, field(1, bytes(array.shape))) + field(5, struct.pack(f"<{array.size}f", *array.ravel()))


def caffemodel(*blobs):
    """Encodes a NetParameter with one LayerParameter (field 100): its name is 1, its type 2, its blobs 7."""
    layer = field(1, b"scores") + field(2, b"InnerProduct") + b"".join(field(7, blob(array)) for array in blobs)
    return field(1, b"small") + field(100, layer)


def save(folder, prototxt=PROTOTXT, weights=None):
    model = folder / "model"
    model.mkdir()
    (model / "deploy.prototxt").write_text(prototxt)
    (model / "weights.caffemodel").write_bytes(caffemodel(WEIGHTS, BIAS) if weights is None else weights)
    return model


def serve(folder, model, **environment):
    return ContainerProcess(ADAPTER, folder, environment={"CLIPPER_MODEL_PATH": str(model), **environment})


def forward(model, batch):
    """Returns what OpenCV says itself, of a net of its own."""
    net = cv2.dnn.readNetFromCaffe(str(next(model.glob("*.prototxt"))), str(next(model.glob("*.caffemodel"))))
    net.setInput(np.asarray(batch, np.float32))
    return net.forward()


def check(container, model, images, prepared):
    """Compares in batches of one and of many."""
    for batch in (slice(0, len(images)), slice(0, 1), slice(len(images) - 1, len(images))):
        got = container.outputs(images[batch])
        np.testing.assert_array_equal(got, forward(model, prepared[batch]))
        assert got.dtype == np.float32


@needs_lenet
def test_lenet(tmp_path):
    model = tmp_path / "lenet"
    model.mkdir()
    shutil.copy(LENET / "lenet_deploy.prototxt", model)
    shutil.copy(LENET / "lenet_iter_10000.caffemodel", model)
    files = sorted((LENET / "samples").glob("*.png"))
    images = np.stack([cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files])[:, None]
    # Its training multiplied the pixels by 1/256.
    with serve(tmp_path, model, CAFFE_SCALE="0.00390625").wait_until_serving() as container:
        check(container, model, images, images / np.float32(256))
        assert container.outputs(images).argmax(1).tolist() == [int(file.name.split("_")[1]) for file in files]
        described = container.stub.Describe(DescribeRequest())
        (taken,), (given,) = described.signature.inputs, described.signature.outputs
        assert (list(taken.shape), list(given.shape)) == ([1, 28, 28], [10])
        assert dict(described.properties)["framework"] == f"opencv {cv2.__version__}"


def softmax(images):
    scores = images.reshape(len(images), -1).astype(np.float64) @ WEIGHTS.T + BIAS
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def test_a_net_of_known_weights(tmp_path):
    model = save(tmp_path)
    images = RANDOM.normal(size=(20, 2, 2, 3)).astype(np.float32)
    with serve(tmp_path, model).wait_until_serving() as container:
        check(container, model, images, images)
        np.testing.assert_allclose(container.outputs(images), softmax(images), rtol=1e-5)


@pytest.mark.parametrize(("mean", "means"), [("100", [100, 100]), ("100,50", [100, 50])])
def test_mean_and_scale(tmp_path, mean, means):
    with serve(tmp_path, save(tmp_path), CAFFE_MEAN=mean, CAFFE_SCALE="0.015625").wait_until_serving() as container:
        want = softmax((IMAGES - np.reshape(means, (2, 1, 1))) / 64)
        np.testing.assert_allclose(container.outputs(IMAGES), want, rtol=1e-5)
        np.testing.assert_allclose(container.outputs(IMAGES[:1]), want[:1], rtol=1e-5)


def test_bad_batches(tmp_path):
    model = save(tmp_path)
    with serve(tmp_path, model).wait_until_serving() as container:
        for rows in (IMAGES[:2, :1], IMAGES[:2, 0, 0], np.arange(2), ["two", "words"], [[1.0, 2.0], [3.0]]):
            (tensor,), _ = tensors.encode(rows, 2)
            assert container.predict(tensor, rows=2).error.message
            check(container, model, IMAGES, IMAGES)


def test_conformance(tmp_path):
    with serve(tmp_path, save(tmp_path)).wait_until_serving() as container:
        container.conforms(IMAGES[0].tolist(), IMAGES[1].tolist())


@pytest.mark.parametrize("spoil", ["missing", "no weights", "two nets", "truncated", "empty", "weights of another net", "no weights of a layer", "text", "no shape"])
def test_models_that_can_never_be_served(tmp_path, spoil):
    model = save(tmp_path)
    prototxt, weights = model / "deploy.prototxt", model / "weights.caffemodel"
    if spoil == "missing":
        shutil.rmtree(model)
    elif spoil == "no weights":
        weights.unlink()
    elif spoil == "two nets":
        shutil.copy(prototxt, model / "train.prototxt")
    elif spoil == "truncated":
        weights.write_bytes(weights.read_bytes()[:-30])
    elif spoil == "empty":
        weights.write_bytes(b"")
    elif spoil == "weights of another net":
        weights.write_bytes(caffemodel(WEIGHTS[:, :11], BIAS))
    elif spoil == "no weights of a layer":
        weights.write_bytes(caffemodel())
    elif spoil == "text":
        prototxt.write_text("input_dim: 1 input_dim: 3; weights: 1, 2, 3")
    elif spoil == "no shape":
        prototxt.write_text(PROTOTXT.replace("input_dim", "# "))
    with serve(tmp_path, model) as container:
        assert container.process.wait(60) == 78, container.log()
        last = container.log().splitlines()[-1]
        assert str(model) in last
        assert "expected a folder that holds exactly one .prototxt" in last


def test_deployed(tmp_path):
    with deployed(ADAPTER, tmp_path, save(tmp_path), default=[0, 0, 0]) as ask:
        scores = np.exp(WEIGHTS @ IMAGES[0].ravel() + BIAS - (WEIGHTS @ IMAGES[0].ravel() + BIAS).max())
        np.testing.assert_allclose(ask(IMAGES[0].tolist()), scores / scores.sum(), rtol=1e-5, atol=1e-30)
