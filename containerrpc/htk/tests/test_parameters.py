# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from clipper_htk import FormatError, parse_parameters
from clipper_htk.parameters import HEADER

FRAMES = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)


def plain(frames=FRAMES, kind=0o6, tail=b""):
    return HEADER.pack(len(frames), 100000, 4 * frames.shape[1], kind) + frames.astype(">f4").tobytes() + tail


def compressed(frames=FRAMES):
    top, bottom = frames.max(axis=0), frames.min(axis=0)
    scale = 2 * 32767 / (top - bottom)
    offset = (top + bottom) * 32767 / (top - bottom)
    packed = np.rint(frames * scale - offset).astype(">i2")
    header = HEADER.pack(len(frames) + 4, 100000, 2 * frames.shape[1], 0o2006)
    return header + scale.astype(">f4").tobytes() + offset.astype(">f4").tobytes() + packed.tobytes()


def test_floats():
    read = parse_parameters(plain(kind=0o21406))
    np.testing.assert_array_equal(read.frames, FRAMES)
    assert (read.period, read.kind) == (100000, "MFCC_D_A_0")


def test_a_checksum_is_taken_off():
    np.testing.assert_array_equal(parse_parameters(plain(kind=0o10006, tail=b"xx")).frames, FRAMES)


def test_compressed():
    np.testing.assert_allclose(parse_parameters(compressed()).frames, FRAMES, atol=1e-4)


@pytest.mark.parametrize("whole", [plain(), compressed()], ids=["plain", "compressed"])
def test_every_truncation_is_refused(whole):
    for length in range(len(whole)):
        with pytest.raises(FormatError):
            parse_parameters(whole[:length])


def test_any_bytes_are_read_or_refused():
    random = np.random.default_rng(2)
    for _ in range(500):
        try:
            parse_parameters(random.bytes(int(random.integers(0, 64))))
        except FormatError:
            pass
