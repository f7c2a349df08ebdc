# SPDX-License-Identifier: Apache-2.0
"""Clipper from Python, from a notebook too.

    import clipper

    clipper.deploy(lambda rows: rows.sum(axis=1), name="sum", version="1")
"""

from clipper.client import Client, ClipperError
from clipper.closure import save
from clipper.deployment import deploy

__all__ = ["Client", "ClipperError", "deploy", "save"]
