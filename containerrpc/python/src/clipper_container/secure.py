# SPDX-License-Identifier: Apache-2.0
"""TLS and the token of registration, from files that are read again when they have changed."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import grpc

log = logging.getLogger("clipper_container")


class SecurityError(Exception):
    """A setting of TLS or of the token cannot be used."""


def read(path: str) -> bytes:
    """Returns what a file holds."""
    try:
        return Path(path).read_bytes()
    except OSError as e:
        raise SecurityError(f"cannot read {path}: {e.strerror}") from e


@dataclass(frozen=True)
class ServerFiles:
    """The certificate with which a container serves, its key, and the CAs of which Clipper must have one; "": none."""

    cert: str
    key: str
    client_ca: str

    @property
    def enabled(self) -> bool:
        return bool(self.cert or self.key or self.client_ca)

    def credentials(self) -> grpc.ServerCredentials:
        """Returns credentials that follow the files: gRPC asks at every connection."""
        if not self.cert or not self.key:
            raise SecurityError("TLS: a certificate and its key belong together: set --tls-cert and --tls-key")
        seen, current = self._look(), self._load()

        def follow() -> Optional[grpc.ServerCertificateConfiguration]:
            nonlocal seen
            try:
                look = self._look()
                if look == seen:
                    return None  # Those that are in use.
                fresh = self._load()
            except (OSError, SecurityError) as e:
                log.error("certificates are not read again; those before stay in use", extra={"error": str(e)})
                return None
            seen = look
            log.info("certificates were read again")
            return fresh

        return grpc.dynamic_ssl_server_credentials(current, follow, require_client_authentication=bool(self.client_ca))

    def _look(self) -> list[tuple[int, int, int]]:
        found = []
        for path in filter(None, (self.cert, self.key, self.client_ca)):
            try:
                s = os.stat(path)
            except OSError as e:
                raise SecurityError(f"cannot read {path}: {e.strerror}") from e
            found.append((s.st_ino, s.st_size, s.st_mtime_ns))
        return found

    def _load(self) -> grpc.ServerCertificateConfiguration:
        ca = read(self.client_ca) if self.client_ca else None
        return grpc.ssl_server_certificate_configuration([(read(self.key), read(self.cert))], root_certificates=ca)


@dataclass(frozen=True)
class RegisterFiles:
    """How Clipper is called to register: with TLS when any of the first four is set. The token in the file wins."""

    tls: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""
    token_file: str = ""

    @property
    def secure(self) -> bool:
        return bool(self.tls or self.ca or self.cert)

    def channel(self, address: str) -> grpc.aio.Channel:
        """Returns a channel with the files as they are now."""
        if bool(self.cert) != bool(self.key):
            raise SecurityError("TLS: a certificate and its key belong together: set --register-tls-cert and --register-tls-key")
        if not self.secure:
            return grpc.aio.insecure_channel(address)
        ca, key, cert = (read(path) if path else None for path in (self.ca, self.key, self.cert))
        return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(ca, key, cert))

    def token(self) -> str:
        """Returns the token as it is now; "" when there is none. It is in the environment rather than among the
        settings, which are on a command line."""
        if not self.token_file:
            return os.environ.get("CLIPPER_REGISTER_TOKEN", "")
        lines = read(self.token_file).decode().split()
        if not lines:
            raise SecurityError(f"the token to register with: {self.token_file} is empty")
        return lines[0]
