# SPDX-License-Identifier: Apache-2.0
"""What a container tells Prometheus."""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from clipper_container import link
from clipper_container.errors import describe

log = logging.getLogger("clipper_container")

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_RESULTS = {link.OK: "ok", link.FAILED: "error", link.REFUSED: "refused"}
_ROWS = tuple(2**i for i in range(0, 17, 2))


class Metrics:
    """The metrics of one container. All methods may be called on any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._batches = Counter("clipper_container_batches", "Batches answered.", ["result"], registry=self._registry)
        self._results = {number: self._batches.labels(name) for number, name in _RESULTS.items()}
        self._rows = Counter("clipper_container_rows", "Rows predicted.", registry=self._registry)
        self._row_errors = Counter("clipper_container_row_errors", "Rows that failed one by one.", registry=self._registry)
        self._seconds = Histogram("clipper_container_predict_seconds", "Time that the model took for a batch.", buckets=_SECONDS, registry=self._registry)
        self._batch_rows = Histogram("clipper_container_batch_rows", "Rows of a batch.", buckets=_ROWS, registry=self._registry)
        self._in_flight = Gauge("clipper_container_in_flight", "Batches that wait or are being predicted.", registry=self._registry)
        self._ready = Gauge("clipper_container_ready", "1 while the container can predict.", registry=self._registry)

    def serve(self, address: str) -> None:
        """Serves at host:port from now on, on a thread of its own; without a host, on loopback.
        Raises OSError when it cannot."""
        host, _, port = address.rpartition(":")
        host = host.strip("[]") or "127.0.0.1"
        try:
            server, _ = start_http_server(int(port), host, self._registry)
        except (OSError, OverflowError, ValueError) as e:
            raise OSError(f"cannot serve metrics on {address}: {describe(e)}; it is host:port") from e
        log.info("serving metrics", extra={"address": f"{host}:{server.server_port}"})

    def taken(self) -> None:
        """Counts a batch that was received."""
        self._in_flight.inc()

    def answered(self, answer: link.Message) -> None:
        """Counts the answer to a batch that was taken."""
        self._in_flight.dec()
        self._results[answer.result].inc()
        if answer.result == link.REFUSED:
            return
        self._batch_rows.observe(answer.rows)
        self._seconds.observe(answer.time / 1e6)
        if answer.result == link.OK:
            self._row_errors.inc(answer.row_errors)
            self._rows.inc(answer.rows - answer.row_errors)

    def ready(self, ready: bool) -> None:
        """Says whether the container can predict."""
        self._ready.set(ready)
