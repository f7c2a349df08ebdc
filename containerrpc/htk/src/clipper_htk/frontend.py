# SPDX-License-Identifier: Apache-2.0
"""The front end: from audio to parameters as HCopy makes them, and the parts of a vector that are derived from others."""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper_htk.parameters import HEADER, FormatError, Parameters, parse_parameters, same_kind, split_kind
from clipper_htk.text import fail, lines

Floats = NDArray[np.float64]

# The variables that count here, with HTK's defaults, but that of TARGETRATE, which has none.
DEFAULTS: dict[str, Any] = {
    "SOURCEFORMAT": "HTK", "SOURCERATE": 0.0, "BYTEORDER": "VAX", "TARGETKIND": "ANON", "TARGETRATE": 100000.0,
    "WINDOWSIZE": 256000.0, "USEHAMMING": True, "PREEMCOEF": 0.97, "ZMEANSOURCE": False, "USEPOWER": False,
    "NUMCHANS": 20, "LOFREQ": -1.0, "HIFREQ": -1.0, "NUMCEPS": 12, "CEPLIFTER": 22, "RAWENERGY": True,
    "ENORMALISE": True, "ESCALE": 0.1, "SILFLOOR": 50.0, "DELTAWINDOW": 2, "ACCWINDOW": 2, "THIRDWINDOW": 2, "SIMPLEDIFFS": False,
}  # fmt: skip
# These say what is true anyway, or how files are written.
WITHOUT_EFFECT = {"SOURCEKIND", "TARGETFORMAT", "SAVECOMPRESSED", "SAVEWITHCRC", "NATURALREADORDER", "NATURALWRITEORDER"}
MAXIMUM_FRAMES = 1_000_000  # almost three hours at 10 ms: a header that lies about the rate must not take all memory
BLOCK = 1024  # windows that are analysed at once
_LINE = re.compile(r"\s*(?:\w+\s*:\s*)?(\w+)\s*=\s*(\"[^\"]*\"|'[^']*'|[^\s#]+)\s*(?:#.*)?$")


def read_config(text: str, name: str = "configuration") -> dict[str, str]:
    """Reads lines of NAME = value, perhaps after a module's name, with comments after #.

    A variable that means nothing here is left out with a warning, as HTK does. Raises FormatError
    with the file's name and the line.
    """
    found = {}
    for number, line in lines(text):
        if line.lstrip().startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None:
            raise fail(name, number, f"expected NAME = value, found {line.strip()[:40]!r}")
        variable = match[1].upper()
        if variable in DEFAULTS:
            found[variable] = match[2].strip("\"'")
        elif variable not in WITHOUT_EFFECT:
            logging.getLogger(__name__).warning("%s:%d: the variable %s is not known and is ignored", name, number, variable)
    return found


class FrontEnd:
    """Makes vectors of one parameter kind. configuration has HTK's variables; raises FormatError for a bad value.

    Audio is analysed for the bases MFCC, FBANK and MELSPEC; qualifiers _E _0 _Z _D _A _T _N are derived
    for every base. May be used by several threads at once.
    """

    def __init__(self, configuration: Mapping[str, str], kind: str) -> None:
        self._set = {**DEFAULTS, **{name: _value(name, text) for name, text in configuration.items()}}
        self.kind = kind
        self._base, self._qualifiers = split_kind(kind)
        said = self._set["TARGETKIND"].upper()
        if said != "ANON" and not same_kind(said, kind):
            raise FormatError(f"TARGETKIND is {said}, the models are for {kind}")
        self.period = int(self._set["TARGETRATE"])

    def read(self, data: bytes) -> Parameters:
        """Returns the parameters of a file in HTK's format, or of audio in SOURCEFORMAT; raises FormatError.

        A file of parameters whose header fits is taken as one whatever SOURCEFORMAT says.
        """
        form = self._set["SOURCEFORMAT"].upper()
        if len(data) >= HEADER.size:
            count, period, width, code = HEADER.unpack_from(data)
            if code & 0o77 and count * width + (2 if code & 0o10000 else 0) == len(data) - HEADER.size:
                return self.complete(parse_parameters(data))
            if code == 0 and width == 2 and count * width == len(data) - HEADER.size:
                return self.analyse(np.frombuffer(data, ">i2", count, HEADER.size), period)
        if form == "NOHEAD":
            order = "<i2" if self._set["BYTEORDER"].upper() == "VAX" else ">i2"
            return self.analyse(np.frombuffer(data, order, len(data) // 2))
        if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
            return self.analyse(*_wav(data))
        if form == "WAV":
            raise FormatError(f"no WAV file: it begins with {data[:12]!r}")
        return self.complete(parse_parameters(data))

    def analyse(self, samples: NDArray[Any], period: float = 0.0) -> Parameters:
        """Returns the parameters of audio: samples in the range of 16 bits, one each period (100 ns; 0 is SOURCERATE)."""
        settings = self._set
        period = period or settings["SOURCERATE"]
        if period <= 0:
            raise FormatError("the rate of the audio is not known: SOURCERATE must say how many 100 ns a sample takes")
        if self._base not in ("MFCC", "FBANK", "MELSPEC"):
            raise FormatError(f"audio is analysed to MFCC, FBANK and MELSPEC; the models are for {self.kind}")
        size, step = int(settings["WINDOWSIZE"] / period), int(self.period / period)
        if size < 2 or step < 1:
            raise FormatError(f"a window of {size} samples every {step}: WINDOWSIZE, TARGETRATE and SOURCERATE do not fit")
        if len(samples) < size:
            raise FormatError(f"{len(samples)} samples; one window has {size}")
        windows = np.lib.stride_tricks.sliding_window_view(samples, size)[::step]
        if len(windows) > MAXIMUM_FRAMES:
            raise FormatError(f"{len(windows)} frames; an utterance has at most {MAXIMUM_FRAMES}")
        parts = [self._windows(windows[start : start + BLOCK].astype(np.float64), period) for start in range(0, len(windows), BLOCK)]
        statics, energy = (np.concatenate(part) for part in zip(*parts))
        if "E" in self._qualifiers:
            # The least that HTK takes the logarithm of.
            log_energy = np.log(np.maximum(energy, 2.45e-308))
            if settings["ENORMALISE"]:
                top = log_energy.max()
                log_energy = 1 - (top - np.maximum(log_energy, top - settings["SILFLOOR"] * np.log(10) / 10)) * settings["ESCALE"]
            statics = np.column_stack([statics, log_energy])
        kind = "_".join([self._base, *sorted(self._qualifiers & {"E", "0"})])
        return self.complete(Parameters(statics.astype(np.float32), self.period, kind))

    def _windows(self, frames: Floats, period: float) -> tuple[Floats, Floats]:
        """Returns what each window gives by itself, and its energy. Changes frames."""
        settings = self._set
        if settings["ZMEANSOURCE"]:
            frames -= frames.mean(axis=1, keepdims=True)
        energy = (frames**2).sum(axis=1)
        emphasis = settings["PREEMCOEF"]
        frames[:, 1:] -= emphasis * frames[:, :-1]
        frames[:, 0] *= 1 - emphasis
        if settings["USEHAMMING"]:
            frames *= np.hamming(frames.shape[1])
        if not settings["RAWENERGY"]:
            energy = (frames**2).sum(axis=1)
        return self._statics(frames, period), energy

    def _statics(self, frames: Floats, period: float) -> Floats:
        settings = self._set
        channels = settings["NUMCHANS"]
        length = 1 << (frames.shape[1] - 1).bit_length()
        spectrum = np.abs(np.fft.rfft(frames, length)[:, : length // 2])
        if settings["USEPOWER"]:
            spectrum **= 2
        bank = spectrum @ _filters(channels, length, period, settings["LOFREQ"], settings["HIFREQ"])
        if self._base == "MELSPEC":
            return np.asarray(bank)
        bank = np.log(np.maximum(bank, 1.0))
        if self._base == "FBANK":
            return np.asarray(bank)
        count, lifter = settings["NUMCEPS"], settings["CEPLIFTER"]
        order = np.arange(1, count + 1)
        cosines = np.cos(np.pi / channels * np.outer(np.arange(channels) + 0.5, order))
        cepstra = np.sqrt(2 / channels) * bank @ cosines
        if lifter > 0:
            cepstra *= 1 + lifter / 2 * np.sin(np.pi * order / lifter)
        if "0" in self._qualifiers:
            cepstra = np.column_stack([cepstra, np.sqrt(2 / channels) * bank.sum(axis=1)])
        return np.asarray(cepstra)

    def complete(self, parameters: Parameters) -> Parameters:
        """Adds what the kind has and the parameters lack: _Z, _D, _A, _T, and leaves out what _N does.

        Raises FormatError when the one kind does not follow from the other.
        """
        base, have = split_kind(parameters.kind)
        have -= {"C", "K"}
        want = self._qualifiers - {"C", "K"}
        if (
            base != self._base
            or not have <= want
            or (have ^ want) & {"E", "0"}
            or ("N" in have and have != want)
            or ("Z" in want - have and "D" in have)
        ):
            raise FormatError(f"the parameters are {parameters.kind}; the models are for {self.kind}, which cannot be derived from them")
        frames = parameters.frames
        if have == want or not len(frames):
            return Parameters(frames, parameters.period, self.kind)
        done = [q for q in "DAT" if q in have]
        if frames.shape[1] % (len(done) + 1) or done != list("DAT"[: len(done)]):
            raise FormatError(f"{frames.shape[1]} columns are none of the kind {parameters.kind}")
        width = frames.shape[1] // (len(done) + 1)
        parts = [frames[:, i * width : (i + 1) * width].astype(np.float64) for i in range(len(done) + 1)]
        if "Z" in want - have:
            cepstra = width - ("E" in want)  # the energy has a normalisation of its own
            parts[0][:, :cepstra] -= parts[0][:, :cepstra].mean(axis=0)
        for qualifier, window in (("D", "DELTAWINDOW"), ("A", "ACCWINDOW"), ("T", "THIRDWINDOW")):
            if qualifier in want and qualifier not in have:
                parts.append(deltas(parts[-1], self._set[window], self._set["SIMPLEDIFFS"]))
        if "N" in want:  # the energy itself, the last of the statics, is left out
            parts[0] = parts[0][:, :-1]
        return Parameters(np.concatenate(parts, axis=1).astype(np.float32), parameters.period, self.kind)


def deltas(values: Floats, window: int, simple: bool = False) -> Floats:
    """Returns the slope of each column over 2 window + 1 rows, the first and last row repeated beyond the ends."""
    padded = np.pad(values, ((window, window), (0, 0)), "edge")
    count = len(values)

    def shifted(by: int) -> Floats:
        return padded[window + by : window + by + count]

    if simple:
        return (shifted(window) - shifted(-window)) / (2 * window)
    steps = range(1, window + 1)
    total = sum((k * (shifted(k) - shifted(-k)) for k in steps), np.zeros_like(values))
    return np.asarray(total / (2 * sum(k * k for k in steps)))


def _filters(channels: int, length: int, period: float, low: float, high: float) -> Floats:
    """Returns the weights [length / 2, channels] of triangles that are equally wide in mel."""
    half = length // 2
    hertz = 1e7 / period / length

    def mel(frequency: Any) -> Any:
        return 1127 * np.log(1 + frequency / 700)

    first, last, bottom, top = 1, half - 1, 0.0, float(mel(half * hertz))
    if low >= 0:
        first, bottom = max(1, int(low / hertz + 1.5)), float(mel(low))
    if high >= 0:
        last, top = min(half - 1, int(high / hertz - 0.5)), float(mel(high))
    if not bottom < top or first > last:
        raise FormatError(f"no frequencies from LOFREQ {low:g} to HIFREQ {high:g} at this rate")
    corners = bottom + np.arange(channels + 2) / (channels + 1) * (top - bottom)
    weights = np.zeros((half, channels + 2))
    bins = np.arange(first, last + 1)
    place = mel(bins * hertz)
    left = np.clip(np.searchsorted(corners, place, "left") - 1, 0, channels)
    falling = (corners[left + 1] - place) / (corners[left + 1] - corners[left])
    weights[bins, left], weights[bins, left + 1] = falling, 1 - falling
    return weights[:, 1:-1]


def _value(name: str, text: str) -> Any:
    default = DEFAULTS[name]
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        if text.upper() not in ("T", "F", "TRUE", "FALSE"):
            raise FormatError(f"{name} = {text}: expected T or F")
        return text.upper().startswith("T")
    try:
        value = type(default)(text)
    except ValueError:
        raise FormatError(f"{name} = {text}: expected a number") from None
    least = {
        "NUMCHANS": 1,
        "NUMCEPS": 1,
        "DELTAWINDOW": 1,
        "ACCWINDOW": 1,
        "THIRDWINDOW": 1,
        "TARGETRATE": 1,
        "LOFREQ": -1,
        "HIFREQ": -1,
    }.get(name, 0)
    if not least <= value <= 1e9 or (isinstance(value, int) and value > 1000):
        raise FormatError(f"{name} = {text} is out of range")
    return value


def _wav(data: bytes) -> tuple[NDArray[Any], float]:
    """Returns the samples and the period of a WAV file with one channel of linear PCM."""
    position, form = 12, None
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        body = data[position + 8 : position + 8 + size]
        if name == b"fmt " and size >= 16:
            form = struct.unpack_from("<HHIIHH", body) if len(body) >= 16 else None
        elif name == b"data" and form:
            code, channels, rate, _, _, bits = form
            if code not in (1, 0xFFFE) or channels != 1 or bits not in (8, 16) or rate == 0:
                raise FormatError(
                    f"a WAV file of format {code} with {channels} channels of {bits} bits at {rate} Hz; expected linear PCM, one channel of 8 or 16 bits"
                )
            if len(body) < size:
                raise FormatError(f"the WAV file ends after {len(body)} of {size} bytes of samples")
            if bits == 8:
                return (np.frombuffer(body, "u1").astype(np.float64) - 128) * 256, 1e7 / rate
            return np.frombuffer(body, "<i2", size // 2), 1e7 / rate
        position += 8 + size + size % 2
    raise FormatError("the WAV file has no samples")
