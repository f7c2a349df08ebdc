# SPDX-License-Identifier: Apache-2.0
"""Served predictions are those of OpenCV, and those that numpy computes.

The adapter has Debian's OpenCV and this test the wheel's, which is newer and built otherwise: they add up
in another order, so values agree to a relative 1e-4.
"""

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

ADAPTER = Path(os.environ["CLIPPER_ADAPTER"])
LENET = Path(os.environ.get("CLIPPER_DATA", Path(__file__).parents[4] / "shared" / "data")) / "caffe"

RANDOM = np.random.default_rng(1)
WEIGHTS, BIAS = RANDOM.normal(size=(3, 12)).astype(np.float32), RANDOM.normal(size=3).astype(np.float32)
ROWS = RANDOM.normal(size=(20, 2, 2, 3)).astype(np.float32)

PROTOTXT = """
name: "small"
input: "data"
input_dim: 1
input_dim: 2
input_dim: 2
input_dim: 3
layer { name: "scores" type: "InnerProduct" bottom: "data" top: "scores" inner_product_param { num_output: 3 } }
layer { name: "positive" type: "ReLU" bottom: "scores" top: "positive" }
layer { name: "probabilities" type: "Softmax" bottom: "positive" top: "probabilities" }
"""


def varint(number):
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def field(number, payload):
    """Encodes a field of bytes as protobuf does."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def caffemodel(*blobs):
    """Encodes a NetParameter with one layer (field 100); a blob (7) has a shape (7) and packed floats (5)."""
    encoded = (field(7, field(7, field(1, bytes(b.shape))) + field(5, struct.pack(f"<{b.size}f", *b.ravel()))) for b in blobs)
    return field(1, b"small") + field(100, field(1, b"scores") + field(2, b"InnerProduct") + b"".join(encoded))


def save(folder, weights=None, prototxt=PROTOTXT):
    model = folder / "model"
    model.mkdir()
    (model / "deploy.prototxt").write_text(prototxt)
    (model / "weights.caffemodel").write_bytes(caffemodel(WEIGHTS, BIAS) if weights is None else weights)
    return model


def serve(folder, model, **environment):
    return ContainerProcess(ADAPTER, folder, environment={"CLIPPER_MODEL_PATH": str(model), **environment})


def check(container, model, rows, scale=1.0):
    """Compares with OpenCV in batches of one and of many."""
    net = cv2.dnn.readNetFromCaffe(str(next(model.glob("*.prototxt"))), str(next(model.glob("*.caffemodel"))))
    for batch in (rows, rows[:1], rows[-1:]):
        net.setInput(batch, "", scale)
        got = container.outputs(batch)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, net.forward(), rtol=1e-4, atol=1e-7)


@pytest.mark.skipif(not LENET.exists(), reason=f"CLIPPER_DATA has no LeNet: there is no folder {LENET}")
def test_lenet(tmp_path):
    model = tmp_path / "lenet"
    model.mkdir()
    shutil.copy(LENET / "lenet_deploy.prototxt", model)
    shutil.copy(LENET / "lenet_iter_10000.caffemodel", model)
    files = sorted((LENET / "samples").glob("*.png"))
    images = np.stack([cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files])[:, None].astype(np.float32)
    # Its training multiplied the pixels by 1/256.
    with serve(tmp_path, model, CAFFE_SCALE="0.00390625").wait_until_serving() as container:
        check(container, model, images, 1 / 256)
        assert container.outputs(images).argmax(1).tolist() == [int(file.name.split("_")[1]) for file in files]
        described = container.stub.Describe(DescribeRequest())
        (taken,), (given,) = described.signature.inputs, described.signature.outputs
        assert (list(taken.shape), list(given.shape)) == ([1, 28, 28], [10])
        assert described.properties["framework"].startswith("opencv 4.")


def probabilities(rows):
    scores = np.maximum(rows.reshape(len(rows), -1).astype(np.float64) @ WEIGHTS.T + BIAS, 0)
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("mean", "means"), [("0.5", [0.5, 0.5]), ("0.5,-2", [0.5, -2])])
def test_mean_and_scale(tmp_path, mean, means):
    with serve(tmp_path, save(tmp_path), CAFFE_MEAN=mean, CAFFE_SCALE="0.25").wait_until_serving() as container:
        want = probabilities((ROWS - np.reshape(means, (2, 1, 1))) / 4)
        np.testing.assert_allclose(container.outputs(ROWS), want, rtol=1e-5)
        np.testing.assert_allclose(container.outputs(ROWS[:1]), want[:1], rtol=1e-5)


def test_a_net_of_known_weights_and_bad_batches(tmp_path):
    model = save(tmp_path)
    with serve(tmp_path, model).wait_until_serving() as container:
        np.testing.assert_allclose(container.outputs(ROWS), probabilities(ROWS), rtol=1e-5)
        for rows in (ROWS[:2, :1], ROWS[:2, 0, 0], ROWS[:2].astype(np.float64), ["two", "words"], [[1.0, 2.0], [3.0]]):
            (tensor,), _ = tensors.encode(rows, 2)
            assert container.predict(tensor, rows=2).error.message
            check(container, model, ROWS)


def test_conformance(tmp_path):
    with serve(tmp_path, save(tmp_path)).wait_until_serving() as container:
        container.conforms(ROWS[0].tolist(), ROWS[1].tolist())


@pytest.mark.parametrize("spoil", ["missing", "no weights", "two nets", "truncated", "empty", "of another net", "no blobs", "text", "no shape"])
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
    elif spoil == "of another net":
        weights.write_bytes(caffemodel(WEIGHTS[:, :11], BIAS))
    elif spoil == "no blobs":
        weights.write_bytes(caffemodel())
    elif spoil == "text":
        prototxt.write_text("weights: 1, 2, 3")
    elif spoil == "no shape":
        prototxt.write_text(PROTOTXT.replace("input_dim", "# "))
    never(tmp_path, model)


@pytest.mark.parametrize("setting", ["CAFFE_SCALE=much", "CAFFE_SCALE=1,2", "CAFFE_SCALE=", "CAFFE_MEAN=1,,2", "CAFFE_MEAN=1,", "CAFFE_MEAN=nan", "CAFFE_MEAN=1 2", "CAFFE_MEAN=1,2,3,4,5"])
def test_settings_that_are_no_numbers(tmp_path, setting):
    name, value = setting.split("=")
    assert f'{name} is "{value}", and not' in never(tmp_path, save(tmp_path), **{name: value})


def never(folder, model, **environment):
    with serve(folder, model, **environment) as container:
        assert container.process.wait(60) == 78, container.log()
        last = container.log().splitlines()[-1]
        assert str(model) in last
        assert "expected a folder that holds exactly one .prototxt" in last
        return last


def test_deployed(tmp_path):
    with deployed(ADAPTER, tmp_path, save(tmp_path), default=[0, 0, 0], framework="caffe-cpp") as ask:
        np.testing.assert_allclose(ask(ROWS[0].tolist()), probabilities(ROWS)[0], rtol=1e-5)
