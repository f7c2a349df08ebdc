# SPDX-License-Identifier: Apache-2.0
"""Messages between the two processes of a container."""

from __future__ import annotations

import os
import random
import socket
import threading

import pytest

from clipper_container import link
from clipper_container.link import INLINE, SLOTS, Decoder, Link, Message, Slots


@pytest.fixture
def files():
    files = link.make_slots()
    yield files
    for file in files:
        os.close(file)


def message(i, length):
    return Message(link.ANSWER, bytes([i % 251]) * length, stream=i, rows=i + 1, time=1 << 40 | i, result=link.FAILED, row_errors=i)


@pytest.mark.parametrize("slots", [True, False])
def test_messages_survive_any_cut(files, slots):
    numbers = random.Random(1)
    for _ in range(50):
        putting, taking = (Slots(files), Slots(files)) if slots else (Slots([]), Slots([]))
        sent = [message(i, numbers.choice([0, 1, 100, INLINE, INLINE + 1, 300_000])) for i in range(SLOTS)]
        stream = b"".join(link.encode(m, putting) for m in sent)
        decoder, got = Decoder(taking, bytes), []
        while stream:
            length = numbers.choice([1, 7, 40, 1000, 1 << 20])
            got += decoder.feed(stream[:length])
            stream = stream[length:]
        assert got == sent


def test_large_messages_do_not_pass_through_the_socket(files):
    putting, taking = Slots(files), Slots(files)
    sent = [message(i, 1 << (17 + i)) for i in range(SLOTS + 1)]
    encoded = [link.encode(m, putting) for m in sent]
    assert [len(e) < INLINE for e in encoded] == [True] * SLOTS + [False]  # no slot is left for the last
    decoder = Decoder(taking, bytes)
    assert list(decoder.feed(b"".join(encoded))) == sent
    assert len(link.encode(sent[-1], putting)) < INLINE  # all are free again


def test_a_slot_grows_with_what_it_holds(files):
    putting, decoder = Slots(files[:1]), Decoder(Slots(files[:1]), bytes)
    for length in (INLINE + 1, 1 << 20, INLINE + 1, (1 << 22) + 1):
        encoded = link.encode(message(1, length), putting)
        assert len(encoded) < INLINE
        assert list(decoder.feed(encoded)) == [message(1, length)]


def test_every_message_is_received_once_on_several_threads(files):
    # Eight threads of a model, as many as wait for batches when all are idle.
    a, b = socket.socketpair()
    with a, b:
        server, model = Link(a, Slots([]), Slots(files), bytes), Link(b, Slots(files), Slots([]), bytes)
        sent = [message(i, (i % 5) * 10_000) for i in range(200)]
        got = []

        def receive():
            while (m := model.receive()) is not None:
                got.append(m)

        threads = [threading.Thread(target=receive) for _ in range(8)]
        for thread in threads:
            thread.start()
        for m in sent:
            server.send(m)
        a.shutdown(socket.SHUT_WR)
        for thread in threads:
            thread.join()
        assert sorted(got, key=lambda m: m.stream) == sent


def test_the_other_process_is_gone(files):
    a, b = socket.socketpair()
    with b:
        end = Link(b, Slots(files), Slots([]), bytes)
        a.close()
        assert end.receive() is None
        with pytest.raises(OSError):
            end.send(message(1, 1))
