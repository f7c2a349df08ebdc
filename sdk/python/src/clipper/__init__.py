# SPDX-License-Identifier: Apache-2.0
"""Clipper from Python, from a notebook too.

    import clipper

    with clipper.Client() as client:
        client.deploy(lambda rows: rows.sum(axis=1), name="sum", version="1")
        answer = client.query("sums", [1, 2, 3])
"""

from clipper.async_client import AsyncClient
from clipper.client import Client
from clipper.closure import save
from clipper.connection import VERSION as __version__
from clipper.deployment import deploy
from clipper.errors import ClipperError
from clipper.messages import Answer, Feedback, Prediction, Query
from clipper.tensors import bfloat16, to_numpy, to_tensor

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "ClipperError",
    "Feedback",
    "Prediction",
    "Query",
    "__version__",
    "bfloat16",
    "deploy",
    "save",
    "to_numpy",
    "to_tensor",
]
