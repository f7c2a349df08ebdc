# SPDX-License-Identifier: Apache-2.0
"""A model for the tests of clients: KIND says what it takes and gives."""

import os

import numpy as np
from clipper_container import RowError, serve, spec


def total(rows):
    return [RowError("the sum is below zero") if row.sum() < 0 else row.sum() for row in rows]


def lengths(rows):
    return np.array([len(text) for text in rows], dtype=np.int64)


kind = os.environ["KIND"]
if kind == "echo":  # Any input, given back.
    serve(lambda rows: rows)
elif kind == "total":  # The sum of three numbers.
    serve(total, inputs=[spec("float32", [3])], outputs=[spec("float32")])
elif kind == "lengths":  # How long a text is.
    serve(lengths, inputs=[spec("string")], outputs=[spec("int64")])
