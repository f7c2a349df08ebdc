# SPDX-License-Identifier: Apache-2.0
"""What HTK 3.4.1 itself made: its parameters, and every label, boundary and score that HVite printed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from clipper_htk import Recognizer, parse_mlf, parse_parameters
from clipper_htk.frontend import FrontEnd, read_config

DATA = Path(os.environ.get("CLIPPER_DATA", Path(__file__).parents[3] / "../shared/data")) / "htk"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"no data of HTK in {DATA}: set CLIPPER_DATA")
NAMES = [f"{word}{i}" for word in ("hai", "iie") for i in range(1, 6)]


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recognizer")
    for file in ("hmmsdef.hmm", "hmmlist.txt", "voca.txt", "net.slf"):
        (folder / file).symlink_to(DATA / file)
    (folder / "config").write_bytes((DATA / "speech/config.hcopy").read_bytes())
    (folder / "hvite.args").write_text("-C config -H hmmsdef.hmm -w net.slf\n-p 0.0 -s 1.0 voca.txt hmmlist.txt\n")
    return Recognizer(folder)


@pytest.fixture(scope="module")
def printed():
    found = parse_mlf((DATA / "rec.mlf").read_text())
    return {Path(name).stem: labels for name, labels in found.items()}


def check(result, labels, tolerance):
    assert result.labels.tolist() == [label.text for label in labels]
    assert result.boundaries.tolist() == [[label.start, label.end] for label in labels]
    np.testing.assert_allclose(result.scores, [label.score for label in labels], rtol=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_labels_boundaries_scores(recognizer, printed, name):
    parameters = (DATA / f"mfcc/{name}.mfc").read_bytes()
    check(recognizer.recognize(parameters), printed[name], 1e-6)
    check(recognizer.recognize(parse_parameters(parameters).frames), printed[name], 1e-6)
    # From the audio the last digits differ: HTK analysed it in single precision.
    audio = (DATA / f"speech/{name}.wav").read_bytes()
    check(recognizer.recognize(audio), printed[name], 1e-5)
    check(recognizer.recognize(np.frombuffer(audio, "<i2")), printed[name], 1e-5)


def test_all_are_there(printed):
    assert sorted(printed) == NAMES
    assert sum(map(len, printed.values())) == 43


@pytest.mark.parametrize("name", NAMES)
def test_front_end(name):
    config = DATA / "speech/config.hcopy"
    front_end = FrontEnd(read_config(config.read_text()), "MFCC_0_D_A")
    want = parse_parameters((DATA / f"mfcc/{name}.mfc").read_bytes())
    got = front_end.read((DATA / f"speech/{name}.wav").read_bytes())
    assert (got.period, got.frames.shape) == (want.period, want.frames.shape)
    # HTK computes in single precision: its zeroth coefficient, near 65, has steps of 8e-6.
    np.testing.assert_allclose(got.frames, want.frames, atol=2e-4)
    # Deltas and accelerations from HTK's own statics are HTK's.
    again = front_end.complete(type(want)(want.frames[:, :13], want.period, "MFCC_0"))
    np.testing.assert_allclose(again.frames, want.frames, atol=1e-5)


def test_unknown_variables_are_ignored_with_a_warning(caplog):
    read_config((DATA / "speech/config.hcopy").read_text(), "config.hcopy")
    assert "config.hcopy:8: the variable NUMCHAINS is not known" in caplog.text
