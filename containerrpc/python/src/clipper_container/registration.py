# SPDX-License-Identifier: Apache-2.0
"""Keeps a container registered at Clipper as a replica that no launcher has started."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from typing import Any, Optional

import grpc
from clipper_proto.v1 import model_service_pb2 as model_pb2
from clipper_proto.v1 import model_service_pb2_grpc as model_grpc
from google.protobuf import duration_pb2

from clipper_container.errors import describe
from clipper_container.secure import RegisterFiles, SecurityError

log = logging.getLogger("clipper_container")

# Asked for, and renewed after a third of it.
LEASE_SECONDS = 15
RETRY_SECONDS = 1.0
CALL_SECONDS = 3.0
MAX_REPLICA = 63


class RegistrationError(Exception):
    """Clipper does not want this replica: what it was told is wrong."""


class Registration:
    """One registration. All methods run on one event loop."""

    def __init__(self, register_address: str, advertise_address: str, model: str, version: str, serving: str, files: RegisterFiles = RegisterFiles()) -> None:
        """Registers at register_address that the model is served at advertise_address, by default where it serves."""
        if not model or not version:
            raise RegistrationError("to register, a container needs to know what it serves: set CLIPPER_MODEL_NAME and CLIPPER_MODEL_VERSION")
        address = advertise_address or reached_at(serving)
        self._request = model_pb2.RegisterReplicaRequest(
            model=model,
            version=version,
            replica=replica_id(address),
            address=address,
            lease=duration_pb2.Duration(seconds=LEASE_SECONDS),
        )
        self._address, self._files = register_address, files
        self._files.token()  # What cannot be used is to be known at the start.
        # Without TLS nothing changes, and one channel does.
        self._channel = files.channel(register_address)
        self._task: Optional[asyncio.Task[None]] = None
        self._registered = False

    def keep(self, failed: Any) -> None:
        """Registers and renews from now on; failed is called with the error that ends it."""
        self._task = asyncio.get_running_loop().create_task(self._keep(failed))

    async def leave(self) -> None:
        """Gives the registration up, so that nothing new comes."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._registered:
            self._request.lease.seconds = 0
            try:
                await self._register()
            except grpc.aio.AioRpcError as e:
                log.warning("the registration is left to expire", extra={"error": e.details()})
            except SecurityError as e:
                log.warning("the registration is left to expire", extra={"error": str(e)})
        await self._channel.close()

    async def _keep(self, failed: Any) -> None:
        said = ""
        while True:
            wait = LEASE_SECONDS / 3
            try:
                self._registered = True  # Or perhaps, when the answer is lost.
                await self._register()
                if said != "registered":
                    said = "registered"
                    log.info(said, extra={"replica": self._request.replica, "address": self._request.address})
            except grpc.aio.AioRpcError as e:
                if e.code() == grpc.StatusCode.INVALID_ARGUMENT:
                    self._registered = False
                    failed(RegistrationError(f"register at Clipper: {e.details()}"))
                    return
                wait = RETRY_SECONDS
                if said != e.details():
                    said = e.details() or ""
                    log.warning("not registered, trying again", extra={"error": said})
            except SecurityError as e:
                wait = RETRY_SECONDS
                if said != str(e):
                    said = str(e)
                    log.warning("not registered, trying again", extra={"error": said})
            await asyncio.sleep(wait)

    async def _register(self) -> None:
        self._request.token = self._files.token()
        if self._files.secure:  # With the certificates as they are now.
            await self._channel.close()
            self._channel = self._files.channel(self._address)
        await model_grpc.ModelServiceStub(self._channel).RegisterReplica(self._request, timeout=CALL_SECONDS)


def reached_at(serving: str) -> str:
    """Returns where others reach a server: its address, with the host name when that is all of the
    machine's."""
    if serving.startswith("unix:"):
        return serving
    host, _, port = serving.rpartition(":")
    if host.strip("[]") not in ("", "0.0.0.0", "::"):
        return serving
    try:
        return f"{socket.gethostname()}:{port}"
    except OSError as e:
        raise RegistrationError(f"where do others reach this container? Set CLIPPER_ADVERTISE_ADDRESS: {describe(e)}") from e


def replica_id(address: str) -> str:
    """Makes an id of an address, so that a container that is started again there is the same replica."""
    return re.sub(r"[^A-Za-z0-9._]", "-", address)[-MAX_REPLICA:].lstrip("._-")
