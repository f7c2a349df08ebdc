# SPDX-License-Identifier: Apache-2.0
"""What HTK's text formats share: quoted names, escapes, and errors that say where."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Union

from clipper_htk.parameters import FormatError

_ESCAPE = re.compile(r"\\([0-7]{3}|.)")
# A name, quoted or not; what follows a quoted one must be blank.
_WORD = re.compile(r"""\s*("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^\s"'](?:\\.|[^\s\\])*)(?=\s|$)""")


def read_text(path: Union[str, Path]) -> str:
    """Returns the text of a file; raises FormatError when it is not UTF-8, OSError when it cannot be read."""
    data = Path(path).read_bytes()
    try:
        text = data.decode()
        at = text.find("\0")  # The numbers of a binary file may be UTF-8 by chance; some byte of them is zero.
    except UnicodeDecodeError as e:
        at = e.start
    if at >= 0:
        raise FormatError(f"{path}: byte {at} is not text in UTF-8; a binary file of HTK must be converted to text")
    return text


def fail(name: str, line: int, message: str) -> FormatError:
    """Returns the error for a line, which counts from 1, of the file called name."""
    return FormatError(f"{name}:{line}: {message}")


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Yields each line that is not blank with its number, from 1."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line


def unquote(word: str) -> str:
    """Returns a name as it is meant: without its quotes, escapes replaced (\\" and \\ooo, a byte in octal)."""
    if len(word) > 1 and word[0] in "\"'" and word[-1] == word[0]:
        word = word[1:-1]
    if "\\" not in word:
        return word
    whole, end = bytearray(), 0
    for match in _ESCAPE.finditer(word):
        whole += word[end : match.start()].encode()
        end = match.end()
        whole += bytes([int(match[1], 8) & 0xFF]) if len(match[1]) == 3 else match[1].encode()
    return (bytes(whole) + word[end:].encode()).decode(errors="replace")


def quote(word: str) -> str:
    """Returns a name as HTK reads it back: in quotes when it needs them."""
    if word and word[0] not in "\"'" and not re.search(r"[\s\\]", word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def words(name: str, number: int, line: str) -> list[str]:
    """Returns the words of a line, still quoted."""
    found, position = [], 0
    while line[position:].strip():
        match = _WORD.match(line, position)
        if match is None:
            raise fail(name, number, "a quoted name does not end")
        found.append(match[1])
        position = match.end()
    return found
