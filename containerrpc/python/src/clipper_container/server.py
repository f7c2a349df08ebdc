# SPDX-License-Identifier: Apache-2.0
"""The gRPC server of one container."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Optional

import grpc
from clipper_proto.v1 import error_pb2
from clipper_proto.v1 import model_container_service_pb2 as container_pb2
from clipper_proto.v1 import model_container_service_pb2_grpc as container_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from clipper_container import tensors
from clipper_container.errors import BatchError, describe, to_message
from clipper_container.metrics import Metrics
from clipper_container.model import Model
from clipper_container.registration import Registration, Settings
from clipper_container.worker import Batch, Workers

log = logging.getLogger("clipper_container")

SERVICE = "clipper.v1.ModelContainerService"

# Time to tell those who watch the health that it is over; they would hold the server up for ever.
FAREWELL_SECONDS = 0.1


class Server(container_grpc.ModelContainerServiceServicer):  # type: ignore[misc]
    """Serves one model. All methods run on one event loop; the model has threads of its own, so
    that health checks are answered while it works."""

    def __init__(
        self,
        load: Callable[[], Model],
        name: str,
        version: str,
        max_message_bytes: int,
        register: Optional[Settings] = None,
        metrics_address: str = "",
    ) -> None:
        """metrics_address is where Prometheus finds the metrics; without one, none are kept."""
        self._register = register
        self._metrics_address = metrics_address
        self._metrics = Metrics() if metrics_address else None
        self._registration: Optional[Registration] = None
        self._name, self._version, self._max_message_bytes = name, version, max_message_bytes
        self._model: Optional[Model] = None
        self._readers: set[asyncio.Task[None]] = set()
        self._streams = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._stop = asyncio.Event()
        self._failure: Optional[BaseException] = None
        self._health = health.aio.HealthServicer()
        loop = asyncio.get_running_loop()
        self._workers = Workers(
            load,
            lambda model: _on_loop(loop, self._ready, model),
            lambda error: _on_loop(loop, self._failed, error),
        )

    def stop(self) -> None:
        """Makes ``run`` drain and return."""
        self._stop.set()

    async def run(self, address: str) -> None:
        """Serves until ``stop``, and then until what was taken is answered. Raises what the model
        could not be loaded for, and OSError when the address cannot be served on."""
        if self._metrics is not None:
            self._metrics.serve(self._metrics_address)
        release_socket(address)
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", self._max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # A second container on the same port is a mistake, not a way to share the work.
                ("grpc.so_reuseport", 0),
            ]
        )
        container_grpc.add_ModelContainerServiceServicer_to_server(self, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as e:
            raise OSError(f"cannot serve on {address}: {e}") from e
        serving = address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
        # Before the start: a server that has started and is not stopped can keep the process from ending.
        if self._register is not None:
            self._registration = Registration(self._register, self._name, self._version, serving)
        await server.start()
        log.info("listening", extra={"address": serving})
        self._workers.start()
        await self._stop.wait()
        if self._registration is not None:
            await self._registration.leave()
        log.info("draining", extra={"streams": self._streams})
        if self._metrics is not None:
            self._metrics.ready(False)
        await self._health.enter_graceful_shutdown()
        for reader in self._readers:
            reader.cancel()
        await self._idle.wait()
        await server.stop(FAREWELL_SECONDS)
        if self._failure is not None:
            raise self._failure

    def _ready(self, model: Model) -> None:
        self._model = model
        asyncio.ensure_future(self._set_health(health_pb2.HealthCheckResponse.SERVING))
        if self._metrics is not None:
            self._metrics.ready(True)
        if self._registration is not None:
            self._registration.keep(self._failed)
        log.info("serving", extra={"model": self._name, "version": self._version, **model.properties()})

    def _failed(self, error: BaseException) -> None:
        self._failure = error
        self.stop()

    async def _set_health(self, status: Any) -> None:
        for service in ("", SERVICE):
            await self._health.set(service, status)

    async def _loaded(self, context: Any) -> Model:
        if self._model is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the model is being loaded")
        if self._stop.is_set():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the container is about to stop")
        assert self._model is not None
        return self._model

    async def Describe(self, request: container_pb2.DescribeRequest, context: Any) -> container_pb2.DescribeResponse:
        model = await self._loaded(context)
        options = model.options
        response = container_pb2.DescribeResponse(
            model=self._name,
            version=self._version,
            max_batch_rows=options.max_batch_rows,
            max_message_bytes=self._max_message_bytes,
            max_in_flight=options.max_in_flight,
            properties=model.properties(),
        )
        response.signature.inputs.extend(options.inputs)
        response.signature.outputs.extend(options.outputs)
        return response

    async def Predict(self, requests: AsyncIterator[container_pb2.PredictRequest], context: Any) -> AsyncIterator[container_pb2.PredictResponse]:
        model = await self._loaded(context)
        self._streams += 1
        self._idle.clear()
        context.add_done_callback(self._ended)
        answers: asyncio.Queue[Optional[container_pb2.PredictResponse]] = asyncio.Queue()
        # A caller that sends more than it may is not read: what it sends stays with it.
        slots = asyncio.Semaphore(model.options.max_in_flight)
        taken = 0
        loop = asyncio.get_running_loop()

        metrics = self._metrics

        def done(rows: int, response: container_pb2.PredictResponse) -> None:
            if metrics is not None:
                metrics.answered(rows, response)
            _on_loop(loop, answers.put_nowait, response)

        async def read() -> None:
            nonlocal taken
            try:
                await slots.acquire()
                async for request in requests:
                    taken += 1
                    if metrics is not None:
                        metrics.taken()
                    try:
                        self._workers.submit(self._batch(model, request, done))
                    except BatchError as e:
                        log.warning("batch refused", extra={"rows": request.rows, "error": e})
                        done(request.rows, container_pb2.PredictResponse(id=request.id, error=to_message(e)))
                    await slots.acquire()
            finally:
                answers.put_nowait(None)

        reader = loop.create_task(read())
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

    def _batch(self, model: Model, request: container_pb2.PredictRequest, done: Callable[[int, container_pb2.PredictResponse], None]) -> Batch:
        limit = model.options.max_batch_rows
        if limit and request.rows > limit:
            message = f"the batch has {request.rows} rows; the container takes {limit}"
            raise BatchError(grpc.StatusCode.RESOURCE_EXHAUSTED, error_pb2.ERROR_REASON_TOO_LARGE, message, "rows")
        deadline = time.monotonic() + request.timeout_micros / 1e6 if request.timeout_micros else None
        return Batch(request.id, request.rows, tensors.decode(request), deadline, done)

    def _ended(self, _: Any) -> None:
        self._streams -= 1
        if self._streams == 0:
            self._idle.set()


def _on_loop(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: object) -> None:
    """Calls on the event loop from another thread; nothing when the loop has ended already."""
    try:
        loop.call_soon_threadsafe(call, *arguments)
    except RuntimeError:
        log.debug("an answer came after the end")


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
