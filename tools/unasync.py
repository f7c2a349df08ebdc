#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the Python SDK's client for threads from the one for asyncio, so that both are always of one shape."""

import re
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "sdk" / "python" / "src" / "clipper"
# In this order.
REPLACEMENTS = [
    (r"Make it where it is used, in a running event loop\. Any task may use it\.", "Any thread may use it."),
    (r"The client for asyncio\.", "The client for threads; tools/unasync.py writes it from async_client.py."),
    (r"import asyncio\n", ""),
    (r"AsyncIterable, AsyncIterator, Iterable,", "Iterable, Iterator,"),
    (r"Union\[AsyncIterable\[Query\], Iterable\[Query\]\]", "Iterable[Query]"),
    (r"asyncio\.sleep", "time.sleep"),
    (r"\bAsync(Client|Iterator)\b", r"\1"),
    (r"\b(each|open)_async\b", r"\1_sync"),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\b(async|await) ", ""),
]


def synchronous(text: str) -> str:
    for pattern, replacement in REPLACEMENTS:
        text = re.sub(pattern, replacement, text)
    return text


if __name__ == "__main__":
    (FOLDER / "client.py").write_text(synchronous((FOLDER / "async_client.py").read_text()))
