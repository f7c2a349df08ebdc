# SPDX-License-Identifier: Apache-2.0
"""The front end against the formulas written out one by one, and each way in which audio may come."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from clipper_htk import FormatError, Parameters, format_parameters
from clipper_htk.frontend import FrontEnd, deltas
from clipper_htk.parameters import HEADER

RATE = {"SOURCERATE": "1250", "WINDOWSIZE": "250000", "TARGETRATE": "100000"}  # 8 kHz
AUDIO = (np.random.default_rng(5).normal(size=1000) * 1000).astype(np.int16)


def wav(samples, channels=1, bits=16, rate=8000, extra=b""):
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits)
    chunks = b"".join(
        name + struct.pack("<I", len(body)) + body
        for name, body in ((b"fmt ", form), *([(b"LIST", extra)] if extra else []), (b"data", samples.tobytes()))
    )
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def filter_bank(samples, channels, power=False, low=None, high=None, emphasis=0.97):
    """Log outputs of mel filters for one window, each bin weighed by itself."""
    size = len(samples)
    length = 2 ** math.ceil(math.log2(size))
    emphasised = [samples[0] * (1 - emphasis)] + [samples[i] - emphasis * samples[i - 1] for i in range(1, size)]
    windowed = [x * (0.54 - 0.46 * math.cos(2 * math.pi * i / (size - 1))) for i, x in enumerate(emphasised)]
    spectrum = np.abs(np.fft.fft(windowed, length))

    def mel(hertz):
        return 1127 * math.log(1 + hertz / 700)

    bottom, top = mel(low or 0), mel(high or 4000)
    corners = [bottom + (top - bottom) * c / (channels + 1) for c in range(channels + 2)]
    out = []
    for c in range(1, channels + 1):
        total = 0.0
        for k in range(1, length // 2):
            place = mel(k * 8000 / length)
            if not bottom <= place <= top:
                continue
            rising = (place - corners[c - 1]) / (corners[c] - corners[c - 1])
            falling = (corners[c + 1] - place) / (corners[c + 1] - corners[c])
            total += max(0.0, min(rising, falling)) * spectrum[k] ** (2 if power else 1)
        out.append(math.log(max(1.0, total)))
    return np.array(out)


@pytest.mark.parametrize("settings", [{}, {"USEPOWER": "T"}, {"LOFREQ": "200", "HIFREQ": "3500"}, {"PREEMCOEF": "0"}], ids=str)
def test_filter_bank(settings):
    got = FrontEnd({**RATE, "NUMCHANS": "12", **settings}, "FBANK").analyse(AUDIO)
    assert got.frames.shape == ((1000 - 200) // 80 + 1, 12)
    want = [
        filter_bank(
            AUDIO[t : t + 200].astype(float),
            12,
            "USEPOWER" in settings,
            200 if "LOFREQ" in settings else None,
            3500 if "HIFREQ" in settings else None,
            float(settings.get("PREEMCOEF", 0.97)),
        )
        for t in range(0, 801, 80)
    ]
    np.testing.assert_allclose(got.frames, want, rtol=1e-5)


def test_cepstra():
    bank = FrontEnd({**RATE, "NUMCHANS": "12"}, "FBANK").analyse(AUDIO).frames.astype(float)
    cepstra = FrontEnd({**RATE, "NUMCHANS": "12", "NUMCEPS": "5", "CEPLIFTER": "10"}, "MFCC_0").analyse(AUDIO).frames
    for i in range(1, 6):
        plain = math.sqrt(2 / 12) * sum(bank[:, j - 1] * math.cos(math.pi * i / 12 * (j - 0.5)) for j in range(1, 13))
        np.testing.assert_allclose(cepstra[:, i - 1], plain * (1 + 5 * math.sin(math.pi * i / 10)), atol=1e-4)
    np.testing.assert_allclose(cepstra[:, 5], math.sqrt(2 / 12) * bank.sum(axis=1), rtol=1e-5)
    mel = FrontEnd({**RATE, "NUMCHANS": "12"}, "MELSPEC").analyse(AUDIO).frames
    np.testing.assert_allclose(np.log(mel), bank, rtol=1e-5)


def test_energy():
    windows = [AUDIO[t : t + 200].astype(float) for t in range(0, 801, 80)]
    energy = np.log([(w**2).sum() for w in windows])
    raw = FrontEnd({**RATE, "ENORMALISE": "F"}, "MFCC_E").analyse(AUDIO).frames
    assert raw.shape[1] == 13
    np.testing.assert_allclose(raw[:, -1], energy, rtol=1e-6)
    loud = AUDIO.astype(float)
    loud[:300] *= 1e-4  # far below the floor
    normalised = FrontEnd({**RATE, "SILFLOOR": "30"}, "MFCC_E").analyse(loud).frames[:, -1]
    assert normalised.max() == 1
    assert normalised.min() == pytest.approx(1 - 0.1 * 3 * math.log(10))
    centred = FrontEnd({**RATE, "ENORMALISE": "F", "ZMEANSOURCE": "T"}, "MFCC_E").analyse(AUDIO + 500).frames[:, -1]
    np.testing.assert_allclose(centred, np.log([((w - w.mean()) ** 2).sum() for w in windows]), rtol=1e-6)
    cooked = (
        FrontEnd({**RATE, "ENORMALISE": "F", "RAWENERGY": "F", "PREEMCOEF": "0", "USEHAMMING": "F"}, "MFCC_E").analyse(AUDIO).frames[:, -1]
    )
    np.testing.assert_allclose(cooked, energy, rtol=1e-6)


def test_deltas():
    values = np.random.default_rng(6).normal(size=(7, 2))
    got = deltas(values, 2)
    for t in range(7):
        at = [values[min(6, max(0, t + k))] for k in range(-2, 3)]
        np.testing.assert_allclose(got[t], (at[3] - at[1] + 2 * (at[4] - at[0])) / 10)
        np.testing.assert_allclose(deltas(values, 2, simple=True)[t], (at[4] - at[0]) / 4)
    np.testing.assert_allclose(deltas(np.arange(9.0)[:, None], 3)[3:6], 1)


def test_derived_parts():
    statics = np.random.default_rng(7).normal(size=(6, 3)).astype(np.float32)
    front_end = FrontEnd({"DELTAWINDOW": "1", "ACCWINDOW": "3"}, "MFCC_E_D_A_N_Z")
    got = front_end.complete(Parameters(statics, 100000, "MFCC_E")).frames
    centred = statics.astype(float)
    centred[:, :2] -= centred[:, :2].mean(axis=0)
    slope = deltas(centred, 1)
    np.testing.assert_allclose(got, np.hstack([centred[:, :2], slope, deltas(slope, 3)]), atol=1e-6)
    # From statics with deltas, and from a file.
    with_deltas = Parameters(np.hstack([centred, slope]).astype(np.float32), 100000, "MFCC_E_D_Z")
    np.testing.assert_allclose(front_end.complete(with_deltas).frames, got, atol=1e-6)
    np.testing.assert_allclose(front_end.read(format_parameters(with_deltas)).frames, got, atol=1e-6)


@pytest.mark.parametrize("kind", ["MFCC_0", "PLP_E", "MFCC", "MFCC_E_D", "MFCC_E_D_A_N"])
def test_what_cannot_be_derived(kind):
    with pytest.raises(FormatError, match="cannot be derived"):
        FrontEnd({}, "MFCC_E_D_Z").complete(Parameters(np.zeros((3, 4), np.float32), 100000, kind))


def test_ways_that_audio_comes():
    front_end = FrontEnd({"WINDOWSIZE": "250000"}, "MFCC_0_D")
    want = FrontEnd(RATE, "MFCC_0_D").analyse(AUDIO)
    htk = HEADER.pack(len(AUDIO), 1250, 2, 0) + AUDIO.astype(">i2").tobytes()
    for file in (wav(AUDIO), wav(AUDIO, extra=b"some text "), htk):
        np.testing.assert_array_equal(front_end.read(file).frames, want.frames)
    raw = {**RATE, "SOURCEFORMAT": "NOHEAD"}
    np.testing.assert_array_equal(FrontEnd(raw, "MFCC_0_D").read(AUDIO.astype("<i2").tobytes()).frames, want.frames)
    np.testing.assert_array_equal(
        FrontEnd({**raw, "BYTEORDER": "NONVAX"}, "MFCC_0_D").read(AUDIO.astype(">i2").tobytes()).frames, want.frames
    )
    eight = (AUDIO // 256 + 128).astype(np.uint8)
    np.testing.assert_array_equal(
        front_end.read(wav(eight, bits=8)).frames, FrontEnd(RATE, "MFCC_0_D").analyse(AUDIO // 256 * 256.0).frames
    )


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (wav(AUDIO, channels=2), "one channel"),
        (wav(AUDIO[:100]), "100 samples; one window has"),
        (wav(AUDIO)[:-10], "ends after 1990 of 2000 bytes"),
        (wav(AUDIO)[:30], "no samples"),
        (wav(AUDIO, rate=0), "at 0 Hz"),
        (b"", "0 bytes"),
    ],
)
def test_wrong_audio(data, error):
    with pytest.raises(FormatError, match=error):
        FrontEnd({}, "MFCC_0").read(data)


def test_every_truncation_of_a_wav_file_is_refused():
    whole = wav(AUDIO)
    for end in range(0, len(whole), 7):
        with pytest.raises(FormatError):
            FrontEnd({}, "MFCC_0").read(whole[:end])


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"NUMCHANS": "0"}, "NUMCHANS = 0 is out of range"),
        ({"NUMCHANS": "x"}, "expected a number"),
        ({"USEHAMMING": "2"}, "expected T or F"),
        ({"WINDOWSIZE": "inf"}, "out of range"),
        ({"TARGETKIND": "PLP_0"}, "TARGETKIND is PLP_0, the models are for MFCC_0"),
    ],
)
def test_wrong_settings(settings, error):
    with pytest.raises(FormatError, match=error):
        FrontEnd(settings, "MFCC_0")


def test_frequencies_outside_of_the_audio():
    with pytest.raises(FormatError, match="LOFREQ 5000"):
        FrontEnd({**RATE, "LOFREQ": "5000"}, "MFCC").analyse(AUDIO)
