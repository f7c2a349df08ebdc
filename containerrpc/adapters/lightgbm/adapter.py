# SPDX-License-Identifier: Apache-2.0
"""Serves a LightGBM model that save_model wrote as text."""

from pathlib import Path

from clipper_container import ModelError, serve, spec


class LightGBM:
    expects = "a text file of LightGBM's Booster.save_model"

    def __init__(self, path):
        import lightgbm

        text = Path(path).read_text()
        if "\nend of trees\n" not in text:  # LightGBM itself reads past the end of a file that was cut off
            raise ModelError(f"cannot load the model {path}: its trees are incomplete; expected {self.expects}")
        booster = lightgbm.Booster(model_str=text)
        self.predict = booster.predict
        self.inputs, self.outputs = [spec(shape=[booster.num_feature()])], [spec("float64", shape=None)]
        self.properties = {"framework": f"lightgbm {lightgbm.__version__}"}


serve(LightGBM)
