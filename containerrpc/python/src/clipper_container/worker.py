# SPDX-License-Identifier: Apache-2.0
"""The threads that the model runs on."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional

import grpc
from clipper_proto.v1 import error_pb2
from clipper_proto.v1 import model_container_service_pb2 as container_pb2

from clipper_container import tensors
from clipper_container.errors import BatchError, to_message
from clipper_container.model import Model

log = logging.getLogger("clipper_container")


@dataclass(frozen=True)
class Batch:
    """A batch to predict; ``done`` is called on the model's thread with its rows and the answer."""

    id: int
    rows: int
    inputs: Any
    deadline: Optional[float]  # of time.monotonic
    done: Callable[[int, container_pb2.PredictResponse], None]


class Workers:
    """The model's threads. There is one unless the model may be run in parallel, so that a model
    is loaded and called on the same thread: many frameworks want that.
    """

    def __init__(self, load: Callable[[], Model], loaded: Callable[[Model], None], failed: Callable[[BaseException], None]) -> None:
        """loaded is called with the model when it can predict, failed when it cannot be loaded or
        asks to end the process; both on a thread of the model."""
        self._load, self._loaded, self._failed = load, loaded, failed
        self._batches: queue.SimpleQueue[Batch] = queue.SimpleQueue()

    def start(self) -> None:
        # A daemon, since a prediction that hangs must not keep the process from ending.
        threading.Thread(target=self._first, name="model", daemon=True).start()

    def submit(self, batch: Batch) -> None:
        self._batches.put(batch)

    def _first(self) -> None:
        try:
            model = self._load()
            for i in range(1, model.options.parallel):
                threading.Thread(target=self._run, args=(model,), name=f"model-{i}", daemon=True).start()
            self._loaded(model)
        except BaseException as e:  # SystemExit too: it ends this thread, not the process
            self._failed(e)
        else:
            self._run(model)

    def _run(self, model: Model) -> None:
        while True:
            batch = self._batches.get()
            try:
                answer = predict(model, batch)
            except BaseException as e:
                batch.done(batch.rows, container_pb2.PredictResponse(id=batch.id, error=to_message(e)))
                self._failed(e)
                return
            batch.done(batch.rows, answer)


def predict(model: Model, batch: Batch) -> container_pb2.PredictResponse:
    """Returns the answer to a batch. What the model raises is part of the answer, except for what
    asks to end the process."""
    response = container_pb2.PredictResponse(id=batch.id)
    try:
        if batch.deadline is not None and time.monotonic() > batch.deadline:
            raise BatchError(grpc.StatusCode.DEADLINE_EXCEEDED, error_pb2.ERROR_REASON_DEADLINE, "the batch's time was over before its turn came")
        start = time.perf_counter_ns()
        try:
            outputs = model.predict(batch.inputs)
        finally:
            response.predict_micros = (time.perf_counter_ns() - start) // 1000
        columns, failed = tensors.encode(outputs, batch.rows)
        response.outputs.extend(columns)
        for row, error in sorted(failed.items()):
            response.row_errors.add(row=row, error=to_message(error))
    except BatchError as e:
        log.warning("batch refused", extra={"rows": batch.rows, "error": e})
        response.error.CopyFrom(to_message(e))
    except Exception as e:
        log.exception("model failed", extra={"rows": batch.rows})
        response.error.CopyFrom(to_message(e))
    return response
