# SPDX-License-Identifier: Apache-2.0
"""HTK parameter files: a big-endian header of 12 bytes, then one vector for each frame."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BASES = ("WAVEFORM", "LPC", "LPREFC", "LPCEPSTRA", "LPDELCEP", "IREFC", "MFCC", "FBANK", "MELSPEC", "USER", "DISCRETE", "PLP")
QUALIFIERS = {
    "E": 0o100,
    "N": 0o200,
    "D": 0o400,
    "A": 0o1000,
    "C": 0o2000,
    "Z": 0o4000,
    "K": 0o10000,
    "0": 0o20000,
    "V": 0o40000,
    "T": 0o100000,
}
HEADER = struct.Struct(">iihH")


class FormatError(ValueError):
    """The bytes are not what HTK writes; the message says what was expected."""


def split_kind(kind: str) -> tuple[str, set[str]]:
    """Returns the base and the qualifiers of a parameter kind such as MFCC_0_D_A; raises FormatError."""
    base, *qualifiers = kind.upper().split("_")
    if base not in BASES or not set(qualifiers) <= QUALIFIERS.keys() or len(set(qualifiers)) < len(qualifiers):
        raise FormatError(f"{kind} is no parameter kind of HTK")
    return base, set(qualifiers)


def same_kind(one: str, other: str) -> bool:
    """Says whether two kinds are the same whatever the order of their qualifiers; compression and checksum do not count."""
    (base, qualifiers), (other_base, other_qualifiers) = split_kind(one), split_kind(other)
    return base == other_base and not (qualifiers ^ other_qualifiers) - {"C", "K"}


@dataclass(frozen=True)
class Parameters:
    """The vectors of one utterance.

    ``frames`` is float32 of shape [frames, size], ``period`` the time from one frame to the next
    in units of 100 ns, ``kind`` the name of the parameter kind, such as MFCC_0_D_A.
    """

    frames: NDArray[np.float32]
    period: int
    kind: str


def parse_parameters(data: bytes) -> Parameters:
    """Reads a parameter file of floats, compressed (_C) or not; raises FormatError.

    The checksum of a file with _K is taken off and not verified.
    """
    if len(data) < HEADER.size:
        raise FormatError(f"{len(data)} bytes; an HTK parameter file has a header of {HEADER.size}")
    samples, period, width, code = HEADER.unpack_from(data)
    base = code & 0o77
    if base >= len(BASES) or samples < 0 or period < 0 or width <= 0:
        raise FormatError(f"no header of an HTK parameter file: {samples} frames of {width} bytes, every {period} x 100 ns, kind {code:#o}")
    kind = BASES[base] + "".join(f"_{q}" for q, bit in QUALIFIERS.items() if code & bit)
    if BASES[base] in ("WAVEFORM", "IREFC", "DISCRETE"):
        raise FormatError(f"the kind {kind} holds no vectors of floats")
    compressed = bool(code & QUALIFIERS["C"])
    if width % (2 if compressed else 4) or (compressed and samples < 4):
        raise FormatError(f"{samples} frames of {width} bytes are none of the kind {kind}")
    # Of a compressed file the scales and offsets, two floats for each column, count as four frames.
    need = samples * width + (2 if code & QUALIFIERS["K"] else 0)
    if len(data) - HEADER.size != need:
        raise FormatError(f"{len(data) - HEADER.size} bytes follow the header, which announces {need}")
    if not compressed:
        frames = np.frombuffer(data, ">f4", samples * width // 4, HEADER.size).reshape(samples, width // 4)
        return Parameters(frames.astype(np.float32), period, kind)
    columns = width // 2
    scale, offset = np.frombuffer(data, ">f4", 2 * columns, HEADER.size).reshape(2, columns).astype(np.float32)
    if not (np.isfinite(scale).all() and np.isfinite(offset).all() and scale.all()):
        raise FormatError("a scale of the compression is zero, or a scale or offset is not finite")
    packed = np.frombuffer(data, ">i2", (samples - 4) * columns, HEADER.size + 8 * columns).reshape(-1, columns)
    return Parameters((packed.astype(np.float32) + offset) / scale, period, kind)


def format_parameters(parameters: Parameters) -> bytes:
    """Writes a parameter file of floats, without compression or checksum."""
    base, qualifiers = split_kind(parameters.kind)
    code = BASES.index(base) | sum(QUALIFIERS[q] for q in qualifiers - {"C", "K"})
    count, size = parameters.frames.shape
    return HEADER.pack(count, parameters.period, 4 * size, code) + parameters.frames.astype(">f4").tobytes()
