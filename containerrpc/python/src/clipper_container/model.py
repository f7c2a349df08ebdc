# SPDX-License-Identifier: Apache-2.0
"""What the author of a container wrote, brought into one form."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, Optional, Union

from clipper_proto.v1 import tensor_pb2

from clipper_container.errors import ModelError, describe, out_of_memory

Container = Union[Callable[[Any], Any], type]


@dataclass(frozen=True)
class Options:
    """What a container says about itself, as arguments of ``serve`` or as attributes of its model."""

    inputs: Sequence[tensor_pb2.TensorSpec] = ()
    outputs: Sequence[tensor_pb2.TensorSpec] = ()
    max_batch_rows: int = 0
    parallel: int = 1
    properties: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.parallel < 1:
            raise ValueError(f"parallel is {self.parallel}; it is the number of batches predicted at the same time, at least 1")
        if self.max_batch_rows < 0:
            raise ValueError(f"max_batch_rows is {self.max_batch_rows}; it is a number of rows, or 0 for no limit")

    def of(self, model: Any) -> Options:
        """Returns the options with those that the model has as attributes instead of the defaults."""
        defaults = Options()
        mine = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Options(**{name: value if value != getattr(defaults, name) else getattr(model, name, value) for name, value in mine.items()})

    @property
    def max_in_flight(self) -> int:
        """The batches that may be under way: one waits while each thread works on another."""
        return self.parallel + 1


@dataclass(frozen=True)
class Model:
    """A model that can predict."""

    predict: Callable[[Any], Any]
    options: Options

    def properties(self) -> dict[str, str]:
        return {"runtime": "clipper-container", "language": f"Python {platform.python_version()}", **self.options.properties}


def load(container: Container, path: Optional[str], options: Options) -> Model:
    """Returns the model of a container, loaded; raises ModelError when that can never work.

    A class is called with the path of the saved model, or without it when it takes none. Errors
    that may be gone at the next attempt, such as too little memory, are raised as they are.
    """
    if not inspect.isclass(container):
        return Model(container, options)
    arguments = []
    parameters = inspect.signature(container).parameters.values()
    if any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL) for p in parameters):
        if not path:
            raise ModelError("no path of a saved model: set CLIPPER_MODEL_PATH or --model-path")
        arguments.append(path)
    try:
        model = container(*arguments)
        if not callable(model.predict):
            raise ModelError(f"predict is of type {type(model.predict).__name__}, and not a function")
        return Model(model.predict, options.of(model))
    except (TimeoutError, ConnectionError):
        raise
    except Exception as e:
        if out_of_memory(e):
            raise MemoryError(f"not enough memory to load {path or 'the model'}: {describe(e)}") from e
        expected = getattr(container, "expects", "")  # only now, since loading may have added to it
        message = f"cannot load the model {path}: {describe(e)}" if arguments else f"cannot load the model: {describe(e)}"
        raise ModelError(message + (f"; expected {expected}" if expected else "")) from e
