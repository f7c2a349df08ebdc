# SPDX-License-Identifier: Apache-2.0
"""The connection to Clipper."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Optional

import grpc
from clipper_proto.v1 import model_service_pb2_grpc as model_grpc

CALL_SECONDS = 10.0


class ClipperError(Exception):
    """Clipper refused a call, could not be reached, or could not do what was asked."""


class Client:
    """A connection to Clipper's administration; use it as a context manager, or close it.

    admin_address is what ``clipper up --frontend-admin-grpc-listen`` says: host:port or unix:/path.
    It is connected to at the first call. Any thread may use it.
    """

    def __init__(self, admin_address: str = "127.0.0.1:1348") -> None:
        self._admin_address = admin_address
        self._admin = grpc.insecure_channel(admin_address)
        self.models = model_grpc.ModelServiceStub(self._admin)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; calls under way fail."""
        self._admin.close()

    def call(self, method: Any, request: Any) -> Any:
        """Returns the answer to a call of one of the services. Raises ClipperError, whose cause is the grpc.RpcError."""
        try:
            return method(request, timeout=CALL_SECONDS)
        except grpc.RpcError as e:
            if e.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise ClipperError(f"no answer from Clipper's administration at {self._admin_address}; does `clipper up` run there? {e.details()}") from e
            raise ClipperError(e.details()) from e
