# SPDX-License-Identifier: Apache-2.0
"""What connections of both kinds have in common."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Optional, TypeVar, Union

import grpc
import grpc.aio
from clipper_proto.v1 import feedback_service_pb2 as feedback_pb2
from clipper_proto.v1 import query_service_pb2 as query_pb2

from clipper.errors import ClipperError

Item = TypeVar("Item")

VERSION = "0.1.0"
"""The version of this package, as the user agent has it."""

ADDRESS = "127.0.0.1:1347"
ADMIN_ADDRESS = "127.0.0.1:1348"
# How much longer a query may take than its timeout, so that the default output, which the server gives
# at that time, arrives.
ANSWER_GRACE_SECONDS = 1.0
# The mean wait before the first repetition; it doubles each time, up to the second.
FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS = 0.05, 1.0

# How a stream ends that is not at its end. For asyncio, an iterator that fails cancels it.
STREAM_ENDS = (grpc.RpcError, asyncio.CancelledError)

_MAX_MESSAGE_BYTES = 64 << 20

log = logging.getLogger("clipper")


class Settings:
    """How a client reaches Clipper: see ``Client``."""

    def __init__(
        self,
        ca_file: Optional[str],
        cert_file: Optional[str],
        key_file: Optional[str],
        api_key: Optional[str],
        timeout: float,
        attempts: int,
        interceptors: Sequence[Any],
        channel_options: Sequence[tuple[str, Any]],
    ) -> None:
        if timeout <= 0 or attempts < 1:
            raise ValueError(f"timeout {timeout} must be above 0, and attempts {attempts} at least 1")
        if (cert_file is None) != (key_file is None):
            raise ValueError("cert_file and key_file belong together")
        self.timeout = timeout
        self.attempts = attempts
        self.interceptors = list(interceptors)
        self.credentials: Optional[grpc.ChannelCredentials] = None
        if ca_file is not None or cert_file is not None:
            self.credentials = grpc.ssl_channel_credentials(_read(ca_file), _read(key_file), _read(cert_file))
        self.metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()
        self.options = [
            ("grpc.primary_user_agent", f"clipper-python/{VERSION}"),
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.max_pings_without_data", 0),
            # A server that was restarted is found again within a second.
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.min_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            *channel_options,
        ]

    def check(self, *addresses: str) -> None:
        """Raises ValueError when the key would be sent for all to read."""
        for address in addresses:
            if self.metadata and self.credentials is None and not _is_local(address):
                raise ValueError(f"the API key would be sent to {address} without TLS, for all to read: give ca_file")


def _read(path: Optional[str]) -> Optional[bytes]:
    return None if path is None else Path(path).read_bytes()


def _is_local(address: str) -> bool:
    """Says whether an address is of this machine, so that nothing leaves it."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return address.startswith("unix:") or host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def seconds_of(request: Any, otherwise: float) -> float:
    """Returns how long a call may take."""
    if isinstance(request, (query_pb2.QueryRequest, query_pb2.QueryBatchRequest)) and request.HasField("timeout"):
        return float(request.timeout.seconds + request.timeout.nanos / 1e9 + ANSWER_GRACE_SECONDS)
    return otherwise


def is_safe(name: str, request: Any) -> bool:
    """Says whether a call that may have been carried out can be made again."""
    if isinstance(request, (query_pb2.QueryRequest, query_pb2.QueryBatchRequest)):
        return True
    if isinstance(request, feedback_pb2.FeedbackRequest):
        return _counts_once(request)
    if isinstance(request, feedback_pb2.FeedbackBatchRequest):
        return all(map(_counts_once, request.items))
    return name.startswith(("Get", "List", "Explain"))


def _counts_once(request: feedback_pb2.FeedbackRequest) -> bool:
    return bool(request.feedback_id or request.id)


def delay_before_repeating(error: ClipperError, attempt: int, attempts: int, name: str, request: Any, left: float) -> Optional[float]:
    """Returns how long to wait before a call is made again, or None when it is not to be.

    It is between half and all of a time that doubles, so that clients do not come back together, and
    no less than the server asks for. left is the time in seconds that the call still has.
    """
    seconds: float = max(random.uniform(0.5, 1) * min(FIRST_DELAY_SECONDS * 2 ** (attempt - 1), MAX_DELAY_SECONDS), error.retry_after or 0)
    repeated = error.code == grpc.StatusCode.UNAVAILABLE and attempt < attempts and is_safe(name, request) and seconds < left
    if not repeated:
        log.debug("%s failed at attempt %d: %s", name, attempt, error)
        return None
    log.warning("%s is repeated after attempt %d: %s", name, attempt, error)
    return seconds


def open_sync(settings: Settings, address: str) -> Any:
    """Returns a channel for threads."""
    if settings.credentials is None:
        channel = grpc.insecure_channel(address, settings.options)
    else:
        channel = grpc.secure_channel(address, settings.credentials, settings.options)
    return grpc.intercept_channel(channel, *settings.interceptors)


def open_async(settings: Settings, address: str) -> Any:
    """Returns a channel for asyncio."""
    if settings.credentials is None:
        return grpc.aio.insecure_channel(address, settings.options, interceptors=settings.interceptors)
    return grpc.aio.secure_channel(address, settings.credentials, settings.options, interceptors=settings.interceptors)


def each_sync(items: Iterable[Item]) -> Iterator[Item]:
    """Goes through what a stream is to send."""
    return iter(items)


async def each_async(items: Union[AsyncIterable[Item], Iterable[Item]]) -> AsyncIterator[Item]:
    """Goes through what a stream is to send."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
