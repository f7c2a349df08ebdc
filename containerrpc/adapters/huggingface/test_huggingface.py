# SPDX-License-Identifier: Apache-2.0
"""Served predictions are the framework's own, value for value."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers
from clipper_proto.v1 import tensor_pb2
from clipper_proto.v1.model_container_service_pb2 import DescribeRequest, PredictRequest

from clipper_container import tensors
from clipper_container.testing import PATIENCE, ContainerProcess, deployed

ADAPTER = Path(__file__).with_name("adapter.py")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "a", "very", "##s"]
TEXTS = ["good film", "a very bad film", "bad", "", "films, and words that it does not know: zażółć", "a very very good film " * 40]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A classifier with weights by chance, large enough that its answers differ, and its tokenizer."""
    folder = tmp_path_factory.mktemp("saved")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    torch.manual_seed(1)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 32}
    config = transformers.BertConfig(vocab_size=len(WORDS), id2label={0: "sad", 1: "mixed", 2: "happy"}, initializer_range=1.0, **size)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def serve(folder, path, environment=None):
    return ContainerProcess(ADAPTER, folder, environment={"CLIPPER_MODEL_PATH": str(path), **(environment or {})})


def check(container, saved, top):
    """Compares in batches of one and of many, which differ in rounding: they are padded to the longest text."""
    pipeline = transformers.pipeline("text-classification", model=str(saved))
    labels = set()
    for texts in (TEXTS, TEXTS[:1], TEXTS[-1:], [TEXTS[3]]):
        (tensor,), _ = tensors.encode(texts, len(texts))
        response = container.predict(tensor, rows=len(texts))
        assert not response.HasField("error"), response.error
        label, score = (tensors.decode(PredictRequest(rows=len(texts), inputs=[output])) for output in response.outputs)
        assert [output.name for output in response.outputs] == ["label", "score"]
        want = pipeline(texts, top_k=top, batch_size=len(texts), truncation=True)
        np.testing.assert_array_equal(np.reshape(label, (len(texts), top)), [[choice["label"] for choice in answer] for answer in want])
        np.testing.assert_array_equal(np.reshape(score, (len(texts), top)), [[choice["score"] for choice in answer] for answer in want])
        labels.update(np.ravel(label).tolist())
    assert len(labels) > 1, "the model says the same of every text"


def test_the_most_probable_label(tmp_path, saved):
    with serve(tmp_path, saved).wait_until_serving() as container:
        check(container, saved, 1)
        described = container.stub.Describe(DescribeRequest())
        (text,), (label, score) = described.signature.inputs, described.signature.outputs
        assert (text.name, text.data_type, list(text.shape)) == ("text", tensor_pb2.DATA_TYPE_STRING, [])
        assert (label.name, label.data_type, list(label.shape)) == ("label", tensor_pb2.DATA_TYPE_STRING, [])
        assert (score.name, score.data_type, list(score.shape)) == ("score", tensor_pb2.DATA_TYPE_FLOAT64, [])
        assert described.properties["framework"] == f"transformers {transformers.__version__}"

        for rows in (np.zeros((2, 3)), [["good", "film"], ["bad", "film"]], [b"good", b"bad"]):
            (tensor,), _ = tensors.encode(rows, 2)
            assert "text" in container.predict(tensor, rows=2).error.message
        (tensor,), _ = tensors.encode(TEXTS[:2], 2)
        assert len(container.predict(tensor, rows=2).outputs) == 2
        container.conforms(*TEXTS[:2])


def test_several_labels(tmp_path, saved):
    with serve(tmp_path, saved, {"HUGGINGFACE_TOP_K": "2"}).wait_until_serving() as container:
        check(container, saved, 2)
        assert [list(output.shape) for output in container.stub.Describe(DescribeRequest()).signature.outputs] == [[2], [2]]


def test_folders_that_can_never_be_served(tmp_path, saved):
    spoiled = {name: tmp_path / name / "model" for name in ("missing", "file", "truncated", "no weights", "another model")}
    for name, path in spoiled.items():
        path.parent.mkdir()
        if name == "file":
            path.write_text("good, bad")
        elif name != "missing":
            shutil.copytree(saved, path)
    weights = spoiled["truncated"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (spoiled["no weights"] / "model.safetensors").unlink()
    (spoiled["another model"] / "config.json").write_text(json.dumps({"model_type": "of another framework"}))
    # Two at a time, since most of it is the import of transformers.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(never, spoiled.values()))


def never(path):
    with serve(path.parent, path) as container:
        assert container.process.wait(PATIENCE) == 78, container.log()
        last = container.log().splitlines()[-1]
        assert str(path) in last
        assert "expected a folder of save_pretrained" in last


def test_deployed(tmp_path, saved):
    with deployed(ADAPTER, tmp_path, saved, default="none") as ask:
        assert ask(TEXTS[0])["label"] == transformers.pipeline("text-classification", model=str(saved))(TEXTS[0])[0]["label"]


def test_a_number_of_labels_that_is_none(tmp_path, saved):
    with serve(tmp_path, saved, {"HUGGINGFACE_TOP_K": "0"}) as container:
        assert container.process.wait(PATIENCE) == 78, container.log()
        assert "HUGGINGFACE_TOP_K is 0; expected" in container.log().splitlines()[-1]
