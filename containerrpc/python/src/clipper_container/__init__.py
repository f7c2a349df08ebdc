# SPDX-License-Identifier: Apache-2.0
"""Serve a model to Clipper: everything but the prediction.

    from clipper_container import serve

    serve(lambda rows: rows.sum(axis=1))

A function, or a class that loads a model and has a method ``predict``, is a container. See
``serve`` for what the function is given and what it may return.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipper_container.errors import ModelError, RowError
    from clipper_container.runtime import serve
    from clipper_container.tensors import spec

__all__ = ["ModelError", "RowError", "serve", "spec"]

_MODULES = {"ModelError": "errors", "RowError": "errors", "serve": "runtime", "spec": "tensors"}


def __getattr__(name: str) -> Any:
    # Imported when asked for: the process of the gRPC server does without numpy.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"clipper_container.{_MODULES[name]}"), name)
