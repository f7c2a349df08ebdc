# SPDX-License-Identifier: Apache-2.0
"""Serves a model that XGBoost's save_model wrote.

XGBOOST_CLASS names the class to load it with: Booster (the default), XGBClassifier, XGBRanker, ...
XGBOOST_METHOD names the method of a scikit-learn class to serve: predict (the default), predict_proba, ...
"""

import os
import re
from pathlib import Path

from clipper_container import ModelError, serve, spec


class XGBoost:
    expects = "a .json or .ubj file of XGBoost's save_model, and the class of XGBOOST_CLASS with the method of XGBOOST_METHOD"

    def __init__(self, path):
        import xgboost

        model = getattr(xgboost, os.environ.get("XGBOOST_CLASS", "Booster"))()
        # The content tells the format, not the name. An empty buffer would abort the process.
        data = Path(path).read_bytes() or b"nothing"
        model.load_model(bytearray(data))
        # XGBoost reads a file of a later version too, and leaves out what it does not know. The version ends JSON and UBJSON.
        tail = data[-60:].rpartition(b"version")[2]
        saved = list(tail[12:17:2]) if tail.startswith(b"[#L") else [int(n) for n in re.findall(rb"\d+", tail)]
        if saved[:1] > [int(xgboost.__version__.split(".")[0])]:
            raise ModelError(f"it was saved by XGBoost {'.'.join(map(str, saved))}, and here is {xgboost.__version__}")
        booster = model if isinstance(model, xgboost.Booster) else model.get_booster()
        self.predict = booster.inplace_predict if model is booster else getattr(model, os.environ.get("XGBOOST_METHOD", "predict"))
        self.inputs = [spec(shape=[booster.num_features()])]
        self.properties = {"framework": f"xgboost {xgboost.__version__}", "class": type(model).__name__}


serve(XGBoost)
