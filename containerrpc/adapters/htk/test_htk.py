# SPDX-License-Identifier: Apache-2.0
"""Served results are what HTK's own HVite printed, and those of the decoder value for value."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from clipper_htk import Recognizer, parse_mlf, parse_parameters
from clipper_proto.v1.model_container_service_pb2 import DescribeRequest, PredictRequest

from clipper_container import tensors
from clipper_container.testing import ContainerProcess, deployed

ADAPTER = Path(__file__).with_name("adapter.py")
DATA = Path(os.environ.get("CLIPPER_DATA", Path(__file__).parents[3] / "../shared/data")) / "htk"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"no data of HTK in {DATA}: set CLIPPER_DATA")
NAMES = [f"{word}{i}" for word in ("hai", "iie") for i in range(1, 6)]

# Two words of one model with one state each, which lie at -1 and at 1 in the first of two columns.
MODEL = '~h "{0}" <BEGINHMM> <NUMSTATES> 3 <STATE> 2 <MEAN> 2 {1} 0 <VARIANCE> 2 1 1 <TRANSP> 3 0 1 0 0 0.5 0.5 0 0 0 <ENDHMM>\n'
FILES = {
    "hvite.args": "-C config -H hmmdefs -w network -p -2.0 dictionary hmmlist\n",
    "config": "TARGETRATE = 100000.0\n",
    "hmmdefs": "~o <VECSIZE> 2 <USER>\n" + MODEL.format("low", -1) + MODEL.format("high", 1),
    "hmmlist": "low\nhigh\n",
    "dictionary": "LOW low\nHIGH high\n",
    "network": "N=4 L=5\nI=0 W=!NULL\nI=1 W=LOW\nI=2 W=HIGH\nI=3 W=!NULL\n"
    "J=0 S=0 E=1\nJ=1 S=0 E=2\nJ=2 S=1 E=2\nJ=3 S=1 E=3\nJ=4 S=2 E=3\n",
}  # fmt: skip
UTTERANCE = np.array([[-1, 0], [-2, 1], [-1, 0], [2, 0], [1, 0]], np.float32)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def serve(folder, model, **environment):
    return ContainerProcess(ADAPTER, folder, environment={"CLIPPER_MODEL_PATH": str(model), **environment})


def predict(container, rows):
    """Returns the outputs of a batch by name, and the messages of its rows that failed."""
    (tensor,), _ = tensors.encode(rows, len(rows))
    response = container.predict(tensor, rows=len(rows))
    assert not response.HasField("error"), response.error
    # A batch of which every row failed has no outputs.
    outputs = tensors.decode(PredictRequest(rows=len(rows), inputs=response.outputs)) if response.outputs else {}
    return outputs, {e.row: e.error.message for e in response.row_errors}


def check(outputs, results):
    for i, result in enumerate(results):
        assert list(outputs["labels"][i]) == result.labels.tolist()
        np.testing.assert_array_equal(outputs["boundaries"][i], result.boundaries)
        np.testing.assert_array_equal(outputs["scores"][i], result.scores)
        assert outputs["total"][i] == result.total


@needs_data
def test_what_htk_printed(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    for file in (*DATA.glob("*.*"), DATA / "speech/config.hcopy"):
        (model / file.name).symlink_to(file)
    (model / "hvite.args").write_text("-C config.hcopy -H hmmsdef.hmm -w net.slf voca.txt hmmlist.txt\n")
    printed = {Path(name).stem: labels for name, labels in parse_mlf((DATA / "rec.mlf").read_text()).items()}
    decoder = Recognizer(model)
    files = [(DATA / f"mfcc/{name}.mfc").read_bytes() for name in NAMES]
    audio = [(DATA / f"speech/{name}.wav").read_bytes() for name in NAMES]
    with serve(tmp_path, model).wait_until_serving() as container:
        for rows in (
            files,
            audio,
            [parse_parameters(file).frames for file in files],
            [np.frombuffer(file, "<i2") for file in audio],
        ):
            outputs, failed = predict(container, rows)
            assert not failed
            check(outputs, [decoder.recognize(row) for row in rows])
            for name, labels, boundaries, scores in zip(NAMES, outputs["labels"], outputs["boundaries"], outputs["scores"]):
                assert list(labels) == [label.text for label in printed[name]]
                np.testing.assert_array_equal(boundaries, [(label.start, label.end) for label in printed[name]])
                np.testing.assert_allclose(scores, [label.score for label in printed[name]], rtol=1e-5)
            check(predict(container, rows[3:4])[0], [decoder.recognize(rows[3])])


def test_one_and_many_utterances(tmp_path, model):
    rows = [UTTERANCE, UTTERANCE[:3], UTTERANCE[3:], UTTERANCE]
    decoder = Recognizer(model)
    with serve(tmp_path, model).wait_until_serving() as container:
        described = container.stub.Describe(DescribeRequest())
        assert [o.name for o in described.signature.outputs] == ["text", "labels", "boundaries", "scores", "total"]
        assert described.properties["kind"] == "USER"
        outputs, failed = predict(container, rows)
        assert not failed
        check(outputs, [decoder.recognize(row) for row in rows])
        assert list(outputs["labels"][0]) == ["LOW", "HIGH"]
        assert outputs["text"][0] == "LOW HIGH"
        assert outputs["boundaries"][0].tolist() == [[0, 300000], [300000, 500000]]
        check(predict(container, rows[:1])[0], [decoder.recognize(rows[0])])


def test_a_bad_utterance_is_an_error_of_its_row(tmp_path, model):
    with serve(tmp_path, model).wait_until_serving() as container:
        rows = [UTTERANCE, UTTERANCE[:, :1], UTTERANCE[:0], np.full((2, 2), np.nan, np.float32), UTTERANCE[0], UTTERANCE[3:]]
        outputs, failed = predict(container, rows)
        assert sorted(failed) == [1, 2, 3, 4]
        assert "1 columns" in failed[1]
        assert "no frames" in failed[2]
        assert "not finite" in failed[3]
        assert "SOURCERATE" in failed[4]
        assert [list(outputs["labels"][i]) for i in (0, 5)] == [["LOW", "HIGH"], ["HIGH"]]
        outputs, failed = predict(container, [b"no file of HTK", b""])
        assert sorted(failed) == [0, 1]
        assert predict(container, ["text"])[1] == {0: "an utterance is an array of numbers, or the bytes of a file"}
        assert not predict(container, [UTTERANCE])[1]


def test_conformance(tmp_path, model):
    with serve(tmp_path, model).wait_until_serving() as container:
        container.conforms(UTTERANCE.tolist(), UTTERANCE[:3].tolist())


HVITE = """#!{python}
# Stands in for HTK's HVite: checks its arguments, and answers with their number of frames.
import struct, sys
*options, dictionary, hmm_list, utterance = sys.argv[1:]
assert options[:-1] == ["-H", "hmmdefs", "-w", "network", "-p", "-2.0", "-n", "1", "-i"], options
assert (dictionary, hmm_list) == ("dictionary", "hmmlist")
open(dictionary)
frames, period, width, kind = struct.unpack(">iihH", open(utterance, "rb").read(12))
assert (period, width, kind) == (100000, 8, 9)
if frames == 3:
    sys.exit("ERROR [+8522] no token survived")
open(options[-1], "w").write('#!MLF!#\\n"utterance.rec"\\n0 200000 LOW -3.5\\n200000 %d HIGH -7.25\\n.\\n' % (frames * period))
"""


def test_hvite(tmp_path, model):
    (model / "hvite.args").write_text("-C config -H hmmdefs -w network -p -2.0 -n 1 dictionary hmmlist\n")
    program = tmp_path / "HVite"
    program.write_text(HVITE.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    with serve(tmp_path, model, HTK_HVITE=str(program)).wait_until_serving() as container:
        outputs, failed = predict(container, [UTTERANCE, UTTERANCE[:3]])
        assert list(outputs["labels"][0]) == ["LOW", "HIGH"]
        assert outputs["boundaries"][0].tolist() == [[0, 200000], [200000, 500000]]
        assert outputs["scores"][0].tolist() == [-3.5, -7.25]
        assert outputs["total"][0] == -10.75
        assert failed == {1: "HVite ended with 1: ERROR [+8522] no token survived"}


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("hvite.args", None, "hvite.args"),
        ("hmmdefs", None, "hmmdefs"),
        ("hmmdefs", FILES["hmmdefs"].split(" 1 <TRANSP>")[0], "hmmdefs:2: <VARIANCE> needs its size"),
        ("hmmdefs", b"\x80\x04\x95 a pickle", "is not text in UTF-8"),
        ("hmmlist", "low\nmiddle\n", "hmmlist:2: no definition of the model 'middle'"),
        ("network", FILES["network"].replace("HIGH", "MIDDLE"), "no pronunciation of 'MIDDLE'"),
        ("hvite.args", "-H hmmdefs -w network -n 4 dictionary hmmlist\n", "the option -n is not supported"),
    ],
    ids=["no arguments", "missing", "truncated", "another framework", "no such model", "no such word", "option"],
)
def test_models_that_can_never_be_served(tmp_path, model, file, content, expected):
    if content is None:
        (model / file).unlink()
    else:
        (model / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with serve(tmp_path, model) as container:
        assert container.process.wait(60) == 78
        last = container.log().splitlines()[-1]
        assert str(model) in last
        assert expected in last
        assert "expected a folder with hvite.args" in last


def test_deployed(tmp_path, model):
    with deployed(ADAPTER, tmp_path, model, default="nothing") as ask:
        assert ask(UTTERANCE.tolist())["text"] == "LOW HIGH"
