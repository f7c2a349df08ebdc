# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from clipper_container.errors import ModelError, describe


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("63 features\nexpected 64"), "ValueError: 63 features\nexpected 64"),
        (ModelError("no weights"), "no weights"),
        (KeyError(), "KeyError"),
        # How XGBoost, the JVM and Python in another process go on.
        (RuntimeError("[10:00:00] no model\nStack trace:\n  [bt] (0) /usr/lib/libx.so(+0x1)"), "RuntimeError: [10:00:00] no model"),
        (RuntimeError("An error occurred.\n: java.lang.Error: no column\n\tat org.Spark.run(Spark.scala:1)\n"), "RuntimeError: An error occurred.\n: java.lang.Error: no column"),
        (
            RuntimeError('The operation failed.\nTraceback of TorchScript (most recent call last):\n  File "code/m.py", line 4\n    return x @ w\n\nRuntimeError: shapes\n'),
            "RuntimeError: The operation failed.\nRuntimeError: shapes",
        ),
        (RuntimeError('worker failed\n\nTraceback (most recent call last):\n  File "/a.py", line 1'), "RuntimeError: worker failed"),
    ],
)
def test_describe_leaves_stacks_out(error, words):
    assert describe(error) == words
