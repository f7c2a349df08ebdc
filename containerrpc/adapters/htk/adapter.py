# SPDX-License-Identifier: Apache-2.0
"""Serves a speech recogniser of HTK: hidden Markov models, a dictionary, a network, and the arguments of HVite.

HTK_HVITE names HTK's own HVite, to be called for each utterance instead of the decoder that comes along.
"""

import os

from clipper_container import RowError, serve, spec


class Htk:
    expects = "a folder with hvite.args, the arguments of HVite, and the files of HTK that these name"
    outputs = [
        spec(str, name="text"),  # the first: it is what an application answers with
        spec(str, [-1], "labels"),
        spec("int64", [-1, 2], "boundaries"),
        spec("float32", [-1], "scores"),
        spec("float64", name="total"),
    ]

    def __init__(self, path):
        from clipper_htk import Recognizer

        self.recognizer = Recognizer(path, os.environ.get("HTK_HVITE"))
        self.properties = {"framework": "HTK", "kind": self.recognizer.models.kind, "columns": str(self.recognizer.models.size)}

    def predict(self, rows):
        results = [self.recognize(row) for row in rows]
        return {o.name: [getattr(r, o.name, r) for r in results] for o in self.outputs}

    def recognize(self, row):
        try:
            return self.recognizer.recognize(row)
        except ValueError as e:
            return RowError(str(e))


serve(Htk)
