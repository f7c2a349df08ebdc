# SPDX-License-Identifier: Apache-2.0
"""The link between the process of the model and the process of the gRPC server.

A socket carries messages in order. What is large is put into memory that both share, and only announced on the
socket: a socket takes what is longer than its buffer in many small turns, each of which wakes up the other process.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Callable, NamedTuple, Optional

# What a message is. The model's process sends READY when the model is loaded, with a DescribeResponse; ANSWER with a
# PredictResponse; and STOP. The server's sends BATCH with a PredictRequest.
READY, BATCH, ANSWER, STOP = range(4)

# How a batch ended: the model predicted it, the model failed, or it was not given to the model.
OK, FAILED, REFUSED = range(3)

# Up to so many bytes a message goes through the socket.
INLINE = 16 << 10
# Large messages that may be under way in one direction; those beyond them go through the socket too.
SLOTS = 4

_CHUNK = 64 << 10
_HEADER = struct.Struct("<BBHIIIQQ")


class Message(NamedTuple):
    """One message; which of the fields mean something depends on its kind."""

    kind: int
    payload: Any = b""  # to send: bytes
    stream: int = 0
    rows: int = 0
    time: int = 0  # of a BATCH: when it came, by time.monotonic_ns; of an ANSWER: microseconds that the model took
    result: int = OK
    row_errors: int = 0


class Slots:
    """Memory for large messages in one direction, shared with the other process. One side only puts and the other only
    takes, each on one thread at a time."""

    # The first byte says whether there is a message.
    _START = 64

    def __init__(self, files: Sequence[int]) -> None:
        """files are what ``make_slots`` has made, the same on both sides."""
        self._files = files
        self._maps = [mmap.mmap(file, 0) for file in files]

    def put(self, payload: bytes) -> int:
        """Copies a message into a free slot and returns its number, or 0 when none is free."""
        for i, slot in enumerate(self._maps):
            if not slot[0]:
                end = self._START + len(payload)
                if len(slot) < end:
                    os.ftruncate(self._files[i], 1 << (end - 1).bit_length())
                    slot = self._maps[i] = mmap.mmap(self._files[i], 0)
                slot[0] = 1
                slot[self._START : end] = payload
                return i + 1
        return 0

    def take(self, number: int, length: int, convert: Callable[[Any], Any]) -> Any:
        """Returns what convert makes of the message in a slot, a memoryview which it must not keep."""
        slot, end = self._maps[number - 1], self._START + length
        if len(slot) < end:
            slot = self._maps[number - 1] = mmap.mmap(self._files[number - 1], 0)
        with memoryview(slot) as whole, whole[self._START : end] as payload:
            made = convert(payload)
        slot[0] = 0
        return made


def make_slots() -> list[int]:
    """Returns new files in memory for ``Slots``; none where the system has no such files."""
    if not hasattr(os, "memfd_create"):
        return []
    files = [os.memfd_create("clipper-batches") for _ in range(SLOTS)]
    for file in files:
        os.ftruncate(file, _CHUNK)
    return files


def encode(message: Message, slots: Slots) -> bytes:
    """Returns what goes through the socket for a message."""
    kind, payload, stream, rows, time, result, row_errors = message
    number = slots.put(payload) if len(payload) > INLINE else 0
    header = _HEADER.pack(kind, result, number, stream, rows, row_errors, time, len(payload))
    return header if number else header + payload


class Decoder:
    """Makes messages of what comes through the socket, in pieces of any length."""

    def __init__(self, slots: Slots, convert: Callable[[Any], Any]) -> None:
        """A message's payload becomes what convert makes of its bytes, a memoryview which it must not keep."""
        self._slots, self._convert = slots, convert
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yields the messages that are complete now; all must be taken before it is called again."""
        if self._rest:
            data = self._rest + data
        start, view = 0, memoryview(data)
        while len(data) - start >= _HEADER.size:
            kind, result, number, stream, rows, row_errors, time, length = _HEADER.unpack_from(data, start)
            after = start + _HEADER.size
            if number:
                payload = self._slots.take(number, length, self._convert)
            elif len(data) - after >= length:
                payload = self._convert(view[after : after + length])
                after += length
            else:
                break
            start = after
            yield Message(kind, payload, stream, rows, time, result, row_errors)
        self._rest = data[start:]


class Link:
    """The model's end of the link. All methods may be called on any thread."""

    def __init__(self, connection: socket.socket, requests: Slots, answers: Slots, convert: Callable[[Any], Any]) -> None:
        self._connection, self._answers = connection, answers
        self._decoder = Decoder(requests, convert)
        self._received: deque[Message] = deque()
        self._receiving, self._sending = threading.Lock(), threading.Lock()

    def receive(self) -> Optional[Message]:
        """Returns the next message, or None when the other process is gone."""
        with self._receiving:
            while not self._received:
                data = self._connection.recv(_CHUNK)
                if not data:
                    return None
                self._received.extend(self._decoder.feed(data))
            return self._received.popleft()

    def send(self, message: Message) -> None:
        """Sends a message; raises OSError when the other process is gone."""
        with self._sending:
            self._connection.sendall(encode(message, self._answers))
