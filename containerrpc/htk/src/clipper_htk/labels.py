# SPDX-License-Identifier: Apache-2.0
"""Master label files (MLF): the transcriptions of many utterances in one text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clipper_htk.parameters import FormatError
from clipper_htk.text import fail, lines, quote, unquote, words


@dataclass(frozen=True)
class Label:
    """A label from start to end, in units of 100 ns, and its log likelihood."""

    text: str
    start: int
    end: int
    score: float


def format_mlf(transcriptions: Mapping[str, Sequence[Label]]) -> str:
    """Writes transcriptions by file name as HVite prints them: scores in single precision."""
    parts = ["#!MLF!#\n"]
    for name, labels in transcriptions.items():
        parts.append('"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"\n')
        parts += [f"{label.start} {label.end} {quote(label.text)} {np.float32(label.score):.6f}\n" for label in labels]
        parts.append(".\n")
    return "".join(parts)


def parse_mlf(text: str, name: str = "MLF") -> dict[str, list[Label]]:
    """Reads an MLF whose transcriptions are in the file itself, the first alternative of each.

    A label without times or score has zeros. Raises FormatError with the file's name and the line.
    """
    if text.split("\n", 1)[0].strip() != "#!MLF!#":
        raise FormatError(f"{name}: no MLF, which begins with #!MLF!#")
    found: dict[str, list[Label]] = {}
    labels, skipping, inside = [], False, False
    number = 1
    for number, line in list(lines(text))[1:]:
        fields = words(name, number, line)
        if not inside:
            if len(fields) != 1 or fields[0][0] not in "\"'":
                raise fail(name, number, f"expected the name of a file in quotes, found {line.strip()[:20]!r}")
            labels = found[unquote(fields[0])] = []
            inside, skipping = True, False
        elif fields == ["."]:
            inside = False
        elif fields == ["///"]:
            skipping = True
        elif not skipping:
            times: list[int] = []
            while fields and len(times) < 2 and fields[0].lstrip("-").isdecimal():
                times.append(int(fields.pop(0)))
            if not fields:
                raise fail(name, number, "a line without a label")
            try:
                score = float(fields[1]) if len(fields) > 1 else 0.0
            except ValueError:
                raise fail(name, number, f"expected a score after the label, found {fields[1]!r}") from None
            start, end = [*times, 0, 0][:2]
            labels.append(Label(unquote(fields[0]), start, end, score))
    if inside:
        raise fail(name, number, "the transcription does not end with a line of one dot")
    return found
