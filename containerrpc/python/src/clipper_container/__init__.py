# SPDX-License-Identifier: Apache-2.0
"""Serve a model to Clipper: everything but the prediction.

    from clipper_container import serve

    serve(lambda rows: rows.sum(axis=1))

A function, or a class that loads a model and has a method ``predict``, is a container. See
``serve`` for what the function is given and what it may return.
"""

import os

# A model may start programs. gRPC's handlers for forks are for processes that go on using it, and
# can crash those that do not; they are chosen when gRPC is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from clipper_container.errors import ModelError, RowError  # noqa: E402
from clipper_container.runtime import serve  # noqa: E402
from clipper_container.tensors import spec  # noqa: E402

__all__ = ["ModelError", "RowError", "serve", "spec"]
