# SPDX-License-Identifier: Apache-2.0
"""The containers that test_serve.py runs: ``containers.py NAME [SETTING...]``."""

import os
import sys
import threading
import time

import numpy as np

from clipper_container import ModelError, RowError, serve, spec


def wait_for(name):
    """Waits until the test makes a file."""
    while not os.path.exists(os.path.join(os.environ["TEST_FOLDER"], name)):
        time.sleep(0.005)


def announce(name):
    open(os.path.join(os.environ["TEST_FOLDER"], name), "w").close()


def scripted(rows):
    """Does what its first row says."""
    order = rows[0]
    if order == "raise":
        raise ValueError("this batch is\nnot good")
    if order == "short":
        return rows[1:]
    if order == "rows":
        return [RowError(f"row {i}") if row == "fail" else row for i, row in enumerate(rows)]
    if order == "wait":
        announce("waiting")
        wait_for("go")
    if order == "exit":
        sys.exit(3)
    if order == "die":
        os._exit(9)
    return rows


def both(inputs):
    return {"sum": inputs["a"].sum(axis=1) + inputs["b"], "text": ["t"] * len(inputs["b"])}


class Slow:
    """Loads when the test lets it."""

    expects = "one number as text"

    def __init__(self, path):
        wait_for("load")
        with open(path) as f:
            self.factor = float(f.read())
        self.thread = threading.current_thread()
        self.inputs = [spec("float64", [-1])]
        self.outputs = [spec("float64", [-1])]
        self.max_batch_rows = 3
        self.properties = {"framework": "multiplication"}

    def predict(self, rows):
        assert threading.current_thread() is self.thread
        return rows * self.factor


class Numbers(Slow):
    def __init__(self, path):
        announce("load")
        super().__init__(path)


class Never:
    def __init__(self):
        raise ModelError("the licence of the model is over")


class Later:
    def __init__(self):
        raise ConnectionError("the feature store is away")


class Huge:
    def __init__(self):
        self.weights = np.zeros(1 << 60, np.uint8)


class Pair:
    """Each prediction waits for the other: works only in parallel."""

    parallel = 2

    def __init__(self):
        self.barrier = threading.Barrier(2, timeout=30)

    def predict(self, rows):
        self.barrier.wait()
        return rows


CONTAINERS = {
    "first": lambda: serve(lambda rows: rows[:, 0], argv=sys.argv[2:]),
    "scripted": lambda: serve(scripted, argv=sys.argv[2:]),
    "both": lambda: serve(both, inputs=[spec("float64", [2], "a"), spec("float64", name="b")], argv=sys.argv[2:]),
    "slow": lambda: serve(Slow, argv=sys.argv[2:]),
    "numbers": lambda: serve(Numbers, argv=sys.argv[2:]),
    "limited": lambda: serve(Numbers, max_batch_rows=2, argv=sys.argv[2:]),
    "never": lambda: serve(Never, argv=sys.argv[2:]),
    "later": lambda: serve(Later, argv=sys.argv[2:]),
    "huge": lambda: serve(Huge, argv=sys.argv[2:]),
    "pair": lambda: serve(Pair, argv=sys.argv[2:]),
    "modules": lambda: serve(lambda rows: ["yes" if row in sys.modules else "no" for row in rows], argv=sys.argv[2:]),
    "none": lambda: serve(np.sum, parallel=0, argv=sys.argv[2:]),
}

if __name__ == "__main__":
    CONTAINERS[sys.argv[1]]()
