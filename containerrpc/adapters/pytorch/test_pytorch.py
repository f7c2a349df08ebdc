# SPDX-License-Identifier: Apache-2.0
"""Served predictions are the framework's own, value for value."""

from __future__ import annotations

import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from clipper_proto.v1 import error_pb2, tensor_pb2
from clipper_proto.v1.model_container_service_pb2 import DescribeRequest, PredictRequest
from torch import nn

from clipper_container import tensors
from clipper_container.testing import PATIENCE, ContainerProcess, deployed

ADAPTER = Path(__file__).with_name("adapter.py")

RANDOM = np.random.default_rng(1)
ROWS = RANDOM.normal(size=(50, 4)).astype(np.float32)
BATCH = torch.export.Dim("batch")


class Classifier(nn.Module):
    """Three probabilities of four numbers; they would be random were the dropout left on."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))

    def forward(self, x):
        return torch.softmax(self.layers(x), 1)


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 10))

    def forward(self, images):
        scores = self.layers(images / 16)
        return scores, scores.argmax(1)


class Words(nn.Module):
    """Takes a dict beside a tensor, and an argument by its keyword; answers with a dict."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(100, 5)

    def forward(self, tokens, more, *, mask):
        vectors = self.embedding(tokens) * mask.unsqueeze(2)
        return {"mean": vectors.mean(1) * more["scale"].unsqueeze(1), "known": tokens > 0, "length": mask.sum(1)}


class Product(nn.Module):
    def forward(self, x, weight, power: int = 2):
        return x * weight.unsqueeze(1) ** power


def model(kind):
    torch.manual_seed(1)
    return kind().eval()


def script(folder, module):
    torch.jit.save(torch.jit.script(module), folder / "model.pt")
    return folder / "model.pt"


def export(folder, module, arguments=(), keywords=None, **dynamic):
    torch.export.save(torch.export.export(module, arguments, keywords, dynamic_shapes=dynamic or None), folder / "model.pt2")
    return folder / "model.pt2"


def classifier(folder, kind):
    if kind == "TorchScript":
        return script(folder, model(Classifier).train())
    return export(folder, model(Classifier), (torch.zeros(5, 4),), x={0: BATCH})


def serve(folder, path, environment=None):
    return ContainerProcess(ADAPTER, folder, environment={"CLIPPER_MODEL_PATH": str(path), **(environment or {})})


def check(container, want, **inputs):
    """Compares with what want computes of a batch, in batches of one and of many."""
    rows = len(next(iter(inputs.values())))
    for batch in (slice(0, rows), slice(0, 1), slice(rows - 1, rows)):
        given = {name: values[batch] for name, values in inputs.items()}
        encoded, _ = tensors.encode(given, len(range(*batch.indices(rows))))
        response = container.predict(*encoded, rows=len(range(*batch.indices(rows))))
        assert not response.HasField("error"), response.error
        with torch.no_grad():
            wanted = want(**{name: torch.tensor(values) for name, values in given.items()})
        assert [output.name for output in response.outputs] == list(wanted)
        for output in response.outputs:
            got = tensors.decode(PredictRequest(rows=len(wanted[output.name]), inputs=[output]))
            np.testing.assert_array_equal(got, wanted[output.name].numpy())
            assert got.dtype == wanted[output.name].numpy().dtype


def signature(container):
    return [(i.name, i.data_type, i.any_shape or list(i.shape)) for i in container.stub.Describe(DescribeRequest()).signature.inputs]


@pytest.mark.parametrize("kind", ["TorchScript", "torch.export"])
def test_one_input_and_bad_batches(tmp_path, kind):
    path = classifier(tmp_path, kind)
    # An image has the model at a path of its own; the name says nothing.
    shutil.move(path, tmp_path / "model")
    with serve(tmp_path, tmp_path / "model").wait_until_serving() as container:
        check(container, lambda x: {"": model(Classifier)(x)}, x=ROWS)
        if kind == "TorchScript":
            check(container, lambda x: {"": model(Classifier)(x.float())}, x=ROWS.astype(float))
        assert signature(container) == [("x", *((0, True) if kind == "TorchScript" else (tensor_pb2.DATA_TYPE_FLOAT32, [4])))]
        assert container.stub.Describe(DescribeRequest()).properties["framework"] == f"torch {torch.__version__}"
        assert container.stub.Describe(DescribeRequest()).max_batch_rows == 0
        wide = "mat2 shapes cannot be multiplied" if kind == "TorchScript" else "x.size()[1] == 4"
        wrong = ((ROWS[:2, :3], wide), (ROWS[:2].astype(int), "dtype"), (["two", "words"], "str"), ([[1.0, 2.0], [3.0]], "expected sequence"))
        for rows, complaint in wrong:
            (tensor,), _ = tensors.encode(rows, 2)
            assert complaint in container.predict(tensor, rows=2).error.message
        assert container.outputs(ROWS[:2]).shape == (2, 3)


def test_several_outputs(tmp_path):
    images = RANDOM.integers(0, 16, (20, 1, 8, 8)).astype(np.float32)
    path = export(tmp_path, model(Convolution), (torch.zeros(5, 1, 8, 8),), images={0: BATCH})
    with serve(tmp_path, path).wait_until_serving() as container:
        check(container, lambda images: {f"output_{i}": t for i, t in enumerate(model(Convolution)(images))}, images=images)


def test_dicts_and_keywords(tmp_path):
    length = torch.export.Dim("length")
    example = (torch.ones(5, 7, dtype=torch.int64), {"scale": torch.ones(5, dtype=torch.float64)})
    shapes = {"tokens": {0: BATCH, 1: length}, "more": {"scale": {0: BATCH}}, "mask": {0: BATCH, 1: length}}
    path = export(tmp_path, model(Words), example, {"mask": torch.ones(5, 7)}, **shapes)
    with serve(tmp_path, path).wait_until_serving() as container:
        assert signature(container) == [
            ("tokens", tensor_pb2.DATA_TYPE_INT64, [-1]),
            ("more_scale", tensor_pb2.DATA_TYPE_FLOAT64, []),
            ("mask", tensor_pb2.DATA_TYPE_FLOAT32, [-1]),
        ]
        check(
            container,
            lambda tokens, more_scale, mask: model(Words)(tokens, {"scale": more_scale}, mask=mask),
            tokens=RANDOM.integers(0, 100, (9, 6)),
            more_scale=RANDOM.normal(size=9),
            mask=RANDOM.integers(0, 2, (9, 6)).astype(np.float32),
        )


def test_several_inputs_of_torchscript(tmp_path):
    with serve(tmp_path, script(tmp_path, model(Product))).wait_until_serving() as container:
        check(container, lambda weight, x: {"": model(Product)(x, weight)}, weight=ROWS[:, 0], x=ROWS)


@pytest.mark.parametrize("kind", ["TorchScript", "torch.export"])
def test_conformance(tmp_path, kind):
    with serve(tmp_path, classifier(tmp_path, kind)).wait_until_serving() as container:
        container.conforms(ROWS[0].tolist(), ROWS[1].tolist())


def test_files_that_can_never_be_served(tmp_path):
    spoiled = {name: classifier(folder(tmp_path, name), kind) for name, kind in (("script", "TorchScript"), ("program", "torch.export"))}
    for path in spoiled.values():
        path.write_bytes(path.read_bytes()[:-400])
    spoiled.update((name, folder(tmp_path, name) / "model.pt") for name in ("missing", "empty", "weights", "text"))
    spoiled["empty"].touch()
    torch.save(model(Classifier).state_dict(), spoiled["weights"])
    spoiled["text"].write_text("weights: 1, 2, 3")
    # Two at a time, since most of it is the import of PyTorch.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda path: never(path, "expected a file of torch.jit.save or torch.export.save"), spoiled.values()))


# What is changed in a file, and what PyTorch says of the version.
VERSIONS = {
    "TorchScript of the future": ("TorchScript", "version", b"3", b"99", "with version 99, but the maximum supported version for reading is"),
    "TorchScript of the past": ("TorchScript", "version", b"3", b"0", "with version 0, but the minimum supported version for reading is"),
    "archive of the future": ("torch.export", "archive_version", b"0", b"99", "archive version 99 does not match our current archive version 0"),
    "program of the future": ("torch.export", "models/model.json", b'"schema_version": {"major": 8', b'"schema_version": {"major": 99', "SchemaVersion(major=99"),
    "operator of the future": ("torch.export", "models/model.json", b"aten.linear.", b"aten.linear_of_the_future.", "aten.linear_of_the_future"),
}


def test_files_of_other_versions(tmp_path):
    def refused(name):
        kind, member, old, new, complaint = VERSIONS[name]
        path = replaced(classifier(folder(tmp_path, name), kind), member, old, new)
        assert complaint in never(path, "a version of PyTorch that can read it")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(refused, VERSIONS))


def test_a_program_of_a_later_pytorch_in_the_same_format(tmp_path):
    path = replaced(classifier(tmp_path, "torch.export"), "models/model.json", torch.__version__.encode(), b"99.0.0")
    with serve(tmp_path, path).wait_until_serving() as container:
        check(container, lambda x: {"": model(Classifier)(x)}, x=ROWS)


def replaced(path, member, old, new):
    """Changes a member of an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in members if name.split("/", 1)[1] == member)
    assert old in members[name]
    members[name] = members[name].replace(old, new)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_the_largest_batch(tmp_path):
    path = export(tmp_path, model(Classifier), (torch.zeros(5, 4),), x={0: torch.export.Dim("batch", max=16)})
    with serve(tmp_path, path).wait_until_serving() as container:
        assert container.stub.Describe(DescribeRequest()).max_batch_rows == 16
        container.conforms(ROWS[0].tolist(), ROWS[1].tolist())
        (tensor,), _ = tensors.encode(ROWS[:17], 17)
        assert container.predict(tensor, rows=17).error.reason == error_pb2.ERROR_REASON_TOO_LARGE


def test_a_batch_of_a_fixed_size(tmp_path):
    path = export(tmp_path, model(Classifier), (torch.zeros(8, 4),))
    never(path, "fixed in x [8, 4]: export it with dynamic_shapes")


def folder(parent, name):
    (parent / name).mkdir()
    return parent / name


def never(path, expected):
    with serve(path.parent, path) as container:
        assert container.process.wait(PATIENCE) == 78, container.log()
        last = container.log().splitlines()[-1]
        assert str(path) in last
        assert expected in last
        return container.log()


def test_deployed(tmp_path):
    with deployed(ADAPTER, tmp_path, classifier(tmp_path, "torch.export"), default=[0, 0, 0]) as ask, torch.inference_mode():
        np.testing.assert_allclose(ask(ROWS[0].tolist()), model(Classifier)(torch.tensor(ROWS[:1]))[0], rtol=1e-5)
