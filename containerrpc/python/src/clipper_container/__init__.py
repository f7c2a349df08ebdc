# SPDX-License-Identifier: Apache-2.0
"""Serve a model to Clipper: everything but the prediction.

    from clipper_container import serve

    serve(lambda rows: rows.sum(axis=1))

A function, or a class that loads a model and has a method ``predict``, is a container. See
``serve`` for what the function is given and what it may return.
"""

from clipper_container.errors import ModelError, RowError
from clipper_container.runtime import serve
from clipper_container.tensors import spec

__all__ = ["ModelError", "RowError", "serve", "spec"]
