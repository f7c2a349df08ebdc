# SPDX-License-Identifier: Apache-2.0
"""The gRPC server of one container, in a process of its own.

Clipper speaks with this process, and this process with the model's, which knows nothing of gRPC. In one process they
would share the interpreter's lock, and each would hold up the other: a model that gives the lock up and takes it again
for every tree of a forest took twice as long while the next batch came in.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Optional

# Chosen when gRPC is imported: its handlers for forks are for processes that fork, and this one does not.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import grpc  # noqa: E402
from clipper_proto.v1 import model_container_service_pb2 as container_pb2  # noqa: E402
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # noqa: E402

from clipper_container import link, logs  # noqa: E402
from clipper_container.errors import describe  # noqa: E402
from clipper_container.link import Decoder, Message, Slots  # noqa: E402
from clipper_container.metrics import Metrics  # noqa: E402
from clipper_container.registration import Registration, reached_at  # noqa: E402
from clipper_container.secure import RegisterFiles, ServerFiles  # noqa: E402

log = logging.getLogger("clipper_container")

SERVICE = "clipper.v1.ModelContainerService"

# Time to tell those who watch the health that it is over; they would hold the server up for ever.
FAREWELL_SECONDS = 0.1

EXIT_RETRY = 1


@dataclass(frozen=True)
class Settings:
    """What the model's process tells the server's, as JSON."""

    connection: int
    requests: list[int]  # files of Slots
    answers: list[int]
    address: str
    model_name: str
    model_version: str
    max_message_bytes: int
    register_address: str
    advertise_address: str
    tls_cert: str
    tls_key: str
    tls_client_ca: str
    register_tls: bool
    register_tls_ca: str
    register_tls_cert: str
    register_tls_key: str
    register_token_file: str
    metrics_address: str  # where Prometheus finds the metrics; without one, none are kept
    log_level: str


def main() -> None:
    """Runs the process. Its exit code is 0 when the model's process asked it to stop, and else 1, with the reason as
    the last line on standard error."""
    settings = Settings(**json.loads(sys.argv[1]))
    logs.configure(settings.log_level)
    try:
        asyncio.run(_serve(settings))
    except Exception as e:
        log.debug("server failed", exc_info=e)
        logs.last_line(e)
        sys.exit(EXIT_RETRY)


async def _serve(settings: Settings) -> None:
    await Server(settings).run()


class _Model(asyncio.Protocol):
    """The server's end of the link."""

    def __init__(self, settings: Settings, received: Any) -> None:
        self._slots = Slots(settings.requests)
        self._decoder = Decoder(Slots(settings.answers), bytes)
        self._received = received
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for message in self._decoder.feed(data):
            self._received(message)

    def connection_lost(self, error: Optional[Exception]) -> None:
        # The model's process is gone, and with it whatever was asked. Nobody waits for this one.
        os._exit(EXIT_RETRY)

    def send(self, message: Message) -> None:
        self._transport.write(link.encode(message, self._slots))


class Server:
    """Serves one model. All methods run on one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics() if settings.metrics_address else None
        self._model = _Model(settings, self._from_model)
        self._description: Optional[container_pb2.DescribeResponse] = None
        self._registration: Optional[Registration] = None
        self._readers: set[asyncio.Task[None]] = set()
        self._answers: dict[int, asyncio.Queue[Optional[bytes]]] = {}  # of each stream, by its number
        self._streams = 0  # that there have been
        self._idle = asyncio.Event()
        self._idle.set()
        self._stop = asyncio.Event()
        self._failure: Optional[BaseException] = None
        self._health = health.aio.HealthServicer()

    async def run(self) -> None:
        """Serves until the model's process says STOP, and then until what was taken is answered. Raises OSError when
        the address cannot be served on, and what ended the registration."""
        settings = self._settings
        if self._metrics is not None:
            self._metrics.serve(settings.metrics_address)
        release_socket(settings.address)
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # A second container on the same port is a mistake, not a way to share the work.
                ("grpc.so_reuseport", 0),
            ]
        )
        # Batches and answers pass through as bytes: only the model's process looks into them.
        methods = {
            "Describe": grpc.unary_unary_rpc_method_handler(self._describe, None, container_pb2.DescribeResponse.SerializeToString),
            "Predict": grpc.stream_stream_rpc_method_handler(self._predict),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        files = ServerFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        try:
            if files.enabled and not settings.address.startswith("unix:"):
                port = server.add_secure_port(settings.address, files.credentials())
            else:
                port = server.add_insecure_port(settings.address)
        except RuntimeError as e:
            raise OSError(f"cannot serve on {settings.address}: {e}") from e
        serving = settings.address if settings.address.startswith("unix:") else f"{settings.address.rpartition(':')[0]}:{port}"
        # Before the start: a server that has started and is not stopped can keep the process from ending.
        if settings.register_address:
            reached = settings.advertise_address or reached_at(serving)
            if files.enabled and not reached.startswith(("unix:", "tls://")):
                reached = "tls://" + reached
            self._registration = Registration(
                settings.register_address,
                reached,
                settings.model_name,
                settings.model_version,
                serving,
                RegisterFiles(settings.register_tls, settings.register_tls_ca, settings.register_tls_cert, settings.register_tls_key, settings.register_token_file),
            )
        await server.start()
        log.info("listening", extra={"address": serving})
        with socket.socket(fileno=settings.connection) as connection:
            await asyncio.get_running_loop().create_connection(lambda: self._model, sock=connection.dup())
        await self._stop.wait()
        if self._registration is not None:
            await self._registration.leave()
        log.info("draining", extra={"streams": len(self._answers)})
        if self._metrics is not None:
            self._metrics.ready(False)
        await self._health.enter_graceful_shutdown()
        for reader in self._readers:
            reader.cancel()
        await self._idle.wait()
        await server.stop(FAREWELL_SECONDS)
        if self._failure is not None:
            raise self._failure

    def _from_model(self, message: Message) -> None:
        if message.kind == link.STOP:
            self._stop.set()
        elif message.kind == link.READY:
            self._ready(container_pb2.DescribeResponse.FromString(message.payload))
        else:
            if self._metrics is not None:
                self._metrics.answered(message)
            answers = self._answers.get(message.stream)
            if answers is not None:  # The caller may be gone.
                answers.put_nowait(message.payload)

    def _ready(self, description: container_pb2.DescribeResponse) -> None:
        self._description = description
        asyncio.ensure_future(self._set_health(health_pb2.HealthCheckResponse.SERVING))
        if self._metrics is not None:
            self._metrics.ready(True)
        if self._registration is not None:
            self._registration.keep(self._failed)
        log.info("serving", extra={"model": description.model, "version": description.version, **description.properties})

    def _failed(self, error: BaseException) -> None:
        self._failure = error
        self._stop.set()

    async def _set_health(self, status: Any) -> None:
        for service in ("", SERVICE):
            await self._health.set(service, status)

    async def _loaded(self, context: Any) -> container_pb2.DescribeResponse:
        if self._description is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the model is being loaded")
        if self._stop.is_set():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the container is about to stop")
        assert self._description is not None
        return self._description

    async def _describe(self, request: bytes, context: Any) -> container_pb2.DescribeResponse:
        return await self._loaded(context)

    async def _predict(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        description = await self._loaded(context)
        self._streams += 1
        stream = self._streams
        answers = self._answers[stream] = asyncio.Queue()
        self._idle.clear()
        context.add_done_callback(lambda _: self._ended(stream))
        # A caller that sends more than it may is not read: what it sends stays with it.
        slots = asyncio.Semaphore(description.max_in_flight)
        taken = 0

        async def read() -> None:
            nonlocal taken
            try:
                await slots.acquire()
                async for request in requests:
                    taken += 1
                    if self._metrics is not None:
                        self._metrics.taken()
                    self._model.send(Message(link.BATCH, request, stream, time=time.monotonic_ns()))
                    await slots.acquire()
            finally:
                answers.put_nowait(None)

        reader = asyncio.get_running_loop().create_task(read())
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)
        try:
            answered, reading = 0, True
            while reading or answered < taken:
                answer = await answers.get()
                if answer is None:
                    reading = False
                    continue
                yield answer
                answered += 1
                slots.release()
        finally:
            reader.cancel()

    def _ended(self, stream: int) -> None:
        del self._answers[stream]
        if not self._answers:
            self._idle.set()


def release_socket(address: str) -> None:
    """Removes the socket file that a container which was killed has left; raises OSError when
    another one still serves on it, or when the file is none."""
    if not address.startswith("unix:"):
        return
    path = address[len("unix:") :]
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(f"cannot serve on {address}: the file exists and is not a socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as e:
            raise OSError(f"cannot serve on {address}: {describe(e)}") from e
    raise OSError(f"cannot serve on {address}: another process serves on it")
