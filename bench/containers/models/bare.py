# SPDX-License-Identifier: Apache-2.0
"""Times a framework's own call, in the process that made the call, whenever the experiment asks.

A script beside this one makes a model and calls ``answer``. The protocol is lines of JSON: first the script says what it made, then
it is sent ``{"rows": n, "seconds": s}`` and answers ``{"micros": [the time of each call]}``, until its standard input ends.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np


def folder():
    """Returns the folder that the model is to be saved in."""
    return Path(sys.argv[1])


def answer(path, rows, call):
    """Answers the experiment until it is done.

    path is the saved model. rows are all rows, an array or a list of texts, of which a batch of n is the first n; the container is
    sent the same. call predicts a batch as the framework's user would.
    """
    made = {"path": str(path), "rows": len(rows)}
    if isinstance(rows, np.ndarray):
        rows.tofile(folder() / "rows")
        made.update(data=str(folder() / "rows"), dtype=rows.dtype.name, shape=rows.shape[1:])
    else:
        made.update(strings=rows)
    print(json.dumps(made), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        batch = rows[: asked["rows"]]
        micros = []
        end = time.perf_counter() + asked["seconds"]
        while not micros or time.perf_counter() < end:
            before = time.perf_counter()
            call(batch)
            micros.append(1e6 * (time.perf_counter() - before))
        print(json.dumps({"micros": micros}), flush=True)
