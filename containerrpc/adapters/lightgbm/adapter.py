# SPDX-License-Identifier: Apache-2.0
"""Serves a LightGBM model that save_model wrote as text."""

import re
from pathlib import Path

from clipper_container import ModelError, serve, spec


class LightGBM:
    expects = "a text file of LightGBM's Booster.save_model"

    def __init__(self, path):
        import lightgbm

        text = Path(path).read_text()
        if "\nend of trees\n" not in text:  # LightGBM itself reads past the end of a file that was cut off
            raise ModelError("its trees are incomplete")
        booster = lightgbm.Booster(model_str=text)
        # LightGBM reads a later format too, and leaves out what it does not know.
        saved, known = (int(re.search(r"^version=v(\d+)$", t, re.MULTILINE)[1]) for t in (text, booster.model_to_string(1)))
        if saved > known:
            raise ModelError(f"its format is v{saved}, and LightGBM {lightgbm.__version__} knows v{known}")
        self.predict = booster.predict
        self.inputs, self.outputs = [spec(shape=[booster.num_feature()])], [spec("float64", shape=None)]
        self.properties = {"framework": f"lightgbm {lightgbm.__version__}"}


serve(LightGBM)
