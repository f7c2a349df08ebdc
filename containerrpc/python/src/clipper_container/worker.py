# SPDX-License-Identifier: Apache-2.0
"""The threads that the model runs on."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Callable, Union

from clipper_proto.v1 import error_pb2
from clipper_proto.v1 import model_container_service_pb2 as container_pb2

from clipper_container import link, tensors
from clipper_container.errors import BatchError, Code, invalid, to_message
from clipper_container.link import Link, Message
from clipper_container.model import Model

log = logging.getLogger("clipper_container")

# What the model answers for; every other error means that the batch was not predicted.
_OF_THE_MODEL = (error_pb2.ERROR_REASON_MODEL_FAILED, error_pb2.ERROR_REASON_MODEL_PROTOCOL)

Request = Union[container_pb2.PredictRequest, BatchError]


def parse(payload: Any) -> Request:
    """Returns the request in a message, or why there is none."""
    try:
        return container_pb2.PredictRequest.FromString(payload)
    except Exception:
        return invalid("the message is no PredictRequest", "")


class Workers:
    """The model's threads. There is one unless the model may be run in parallel, so that a model
    is loaded and called on the same thread: many frameworks want that.
    """

    def __init__(self, load: Callable[[], Model], link: Link, loaded: Callable[[Model], None], failed: Callable[[BaseException], None]) -> None:
        """loaded is called with the model when it can predict, failed when it cannot be loaded or
        asks to end the process; both on a thread of the model."""
        self._load, self._link, self._loaded, self._failed = load, link, loaded, failed

    def start(self) -> None:
        # A daemon, since a prediction that hangs must not keep the process from ending.
        threading.Thread(target=self._first, name="model", daemon=True).start()

    def _first(self) -> None:
        try:
            model = self._load()
            self._loaded(model)
        except BaseException as e:  # SystemExit too: it ends this thread, not the process
            self._failed(e)
            return
        for i in range(1, model.options.parallel):
            threading.Thread(target=self._run, args=(model,), name=f"model-{i}", daemon=True).start()
        self._run(model)

    def _run(self, model: Model) -> None:
        try:
            while (message := self._link.receive()) is not None:
                try:
                    answer = predict(model, message.payload, message.time)
                except BaseException as e:
                    self._answer(message, container_pb2.PredictResponse(id=message.payload.id, error=to_message(e)))
                    self._failed(e)
                    return
                self._answer(message, answer)
        except OSError as e:
            log.debug("the server is gone", extra={"error": e})

    def _answer(self, message: Message, answer: container_pb2.PredictResponse) -> None:
        result = link.OK
        if answer.HasField("error"):
            result = link.FAILED if answer.error.reason in _OF_THE_MODEL else link.REFUSED
        rows = 0 if isinstance(message.payload, BatchError) else message.payload.rows
        self._link.send(Message(link.ANSWER, answer.SerializeToString(), message.stream, rows, answer.predict_micros, result, len(answer.row_errors)))


def predict(model: Model, request: Request, received: int) -> container_pb2.PredictResponse:
    """Returns the answer to a batch that was received at a time of time.monotonic_ns. What the model raises
    is part of the answer, except for what asks to end the process."""
    if isinstance(request, BatchError):
        return _refused(container_pb2.PredictResponse(), request, 0)
    response = container_pb2.PredictResponse(id=request.id)
    try:
        limit = model.options.max_batch_rows
        if limit and request.rows > limit:
            message = f"the batch has {request.rows} rows; the container takes {limit}"
            raise BatchError(Code.RESOURCE_EXHAUSTED, error_pb2.ERROR_REASON_TOO_LARGE, message, "rows")
        inputs = tensors.decode(request)
        if request.timeout_micros and time.monotonic_ns() > received + 1000 * request.timeout_micros:
            raise BatchError(Code.DEADLINE_EXCEEDED, error_pb2.ERROR_REASON_DEADLINE, "the batch's time was over before its turn came")
        start = time.perf_counter_ns()
        try:
            outputs = model.predict(inputs)
        finally:
            response.predict_micros = (time.perf_counter_ns() - start) // 1000
        columns, failed = tensors.encode(outputs, request.rows)
        response.outputs.extend(columns)
        for row, error in sorted(failed.items()):
            response.row_errors.add(row=row, error=to_message(error))
    except BatchError as e:
        return _refused(response, e, request.rows)
    except Exception as e:
        log.exception("model failed", extra={"rows": request.rows})
        response.error.CopyFrom(to_message(e))
    return response


def _refused(response: container_pb2.PredictResponse, error: BatchError, rows: int) -> container_pb2.PredictResponse:
    log.warning("batch refused", extra={"rows": rows, "error": error})
    response.error.CopyFrom(to_message(error))
    return response
