# SPDX-License-Identifier: Apache-2.0
"""What is asked and answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, Union

import numpy as np
from clipper_proto.v1 import feedback_service_pb2 as feedback_pb2
from clipper_proto.v1 import query_service_pb2 as query_pb2
from clipper_proto.v1 import tensor_pb2
from google.protobuf import duration_pb2, json_format, struct_pb2
from google.protobuf.message import Message

from clipper.errors import ClipperError, from_item
from clipper.tensors import Value, to_input, to_value


@dataclass(frozen=True, eq=False)
class Query:
    """One question.

    input is an array, or plain Python that Clipper reads by the application's signature: see
    ``Client.query``. application may be left out in a batch. timeout is in seconds.
    """

    input: Any
    application: str = ""
    context: str = ""
    id: str = ""
    priority: int = 0
    timeout: Optional[float] = None


@dataclass(frozen=True, eq=False)
class Feedback:
    """How a query turned out: feedback_id or input, and truth or reward. See ``Client.feedback``."""

    feedback_id: str = ""
    input: Any = None
    truth: Any = None
    reward: Optional[float] = None
    context: str = ""
    id: str = ""


@dataclass(frozen=True, eq=False)
class Prediction:
    """One model's part in an answer."""

    model: str
    version: str
    status: str
    """"OK", "DEADLINE", "FAILED", "NO_REPLICA", "OVERLOADED", ...: PredictionStatus without its prefix."""
    outputs: Mapping[str, Value]
    """By name; an output without a name by its position. Empty unless the status is OK."""
    message: query_pb2.ModelPrediction = field(repr=False)


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to one question."""

    output: Value
    """The first output: a bool, int, float, str or bytes when it has no dimension, else an array."""
    outputs: Mapping[str, Value]
    """All outputs by name; an output without a name by its position."""
    is_default: bool
    default_reason: str
    """Why the default was given: "DEADLINE", "LOW_CONFIDENCE", ...; "" when it was not."""
    confidence: float
    feedback_id: str
    """For ``Client.feedback``."""
    id: str
    message: query_pb2.QueryResponse = field(repr=False)
    """The whole answer as it came."""

    @property
    def predictions(self) -> list[Prediction]:
        """What each model that was asked said."""
        return [
            Prediction(p.model, p.version, query_pb2.PredictionStatus.Name(p.status)[len("PREDICTION_STATUS_") :], _by_name(p.outputs), p)
            for p in self.message.predictions
        ]


def _by_name(tensors: Iterable[tensor_pb2.Tensor]) -> dict[str, Value]:
    return {t.name or str(i): to_value(t) for i, t in enumerate(tensors)}


def to_answer(message: query_pb2.QueryResponse) -> Answer:
    outputs = _by_name(message.outputs)
    reason = query_pb2.DefaultReason.Name(message.default_reason)[len("DEFAULT_REASON_") :] if message.default_reason else ""
    return Answer(
        output=next(iter(outputs.values()), np.empty(0)),
        outputs=outputs,
        is_default=message.is_default,
        default_reason=reason,
        confidence=message.confidence,
        feedback_id=message.feedback_id,
        id=message.id,
        message=message,
    )


def to_result(message: query_pb2.QueryResult) -> Union[Answer, ClipperError]:
    if message.HasField("error"):
        return from_item(message.error)
    return to_answer(message.response)


def to_feedback_result(message: feedback_pb2.FeedbackResult) -> Union[feedback_pb2.FeedbackResponse, ClipperError]:
    if message.HasField("error"):
        return from_item(message.error)
    return message.response


def query_request(application: str, q: Query) -> query_pb2.QueryRequest:
    tensors, text = to_input(q.input)
    request = query_pb2.QueryRequest(application=application, inputs=tensors, input_json=text, context=q.context, id=q.id, priority=q.priority)
    if q.timeout is not None:
        request.timeout.CopyFrom(to_duration(q.timeout))
    return request


def batch_query(q: Query) -> query_pb2.BatchQuery:
    tensors, text = to_input(q.input)
    return query_pb2.BatchQuery(inputs=tensors, input_json=text, context=q.context, id=q.id, priority=q.priority)


def feedback_request(application: str, f: Feedback) -> feedback_pb2.FeedbackRequest:
    request = feedback_pb2.FeedbackRequest(application=application, feedback_id=f.feedback_id, context=f.context, id=f.id)
    if f.input is not None:
        tensors, request.input_json = to_input(f.input)
        request.inputs.extend(tensors)
    if f.truth is not None:
        request.truth.CopyFrom(to_json(f.truth))
    if f.reward is not None:
        if f.truth is not None:
            raise ValueError("truth and reward exclude each other")
        request.reward = f.reward
    return request


def to_json(value: Any) -> struct_pb2.Value:
    """Returns a value of a message that is JSON; scalars and lists of numpy too."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    try:
        return json_format.ParseDict(value, struct_pb2.Value())
    except (json_format.ParseError, TypeError) as e:
        raise TypeError(f"{type(value).__name__} is no value of JSON: want a number, text, a bool or a list") from e


def to_duration(seconds: float) -> duration_pb2.Duration:
    whole, rest = divmod(round(seconds * 1e9), 1_000_000_000)
    return duration_pb2.Duration(seconds=whole, nanos=rest)


def to_message(value: Union[Message, Mapping[str, Any]], into: Any) -> Any:
    """Returns a message, or what a dict in its JSON form says. Raises ValueError when that cannot be read."""
    if isinstance(value, Message):
        return value
    try:
        return json_format.ParseDict(dict(value), into)
    except json_format.ParseError as e:
        raise ValueError(f"{type(into).__name__} cannot be read: {e}") from e
