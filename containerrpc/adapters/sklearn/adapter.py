# SPDX-License-Identifier: Apache-2.0
"""Serves a scikit-learn estimator that was saved with joblib.

SKLEARN_METHOD names the method to serve: predict (the default), predict_proba, ...
"""

import os
import warnings

from clipper_container import serve, spec


class ScikitLearn:
    expects = "an estimator written by joblib.dump with the same version of scikit-learn, with the method of SKLEARN_METHOD"

    def __init__(self, path):
        import joblib
        import sklearn

        ScikitLearn.expects += f"; here is scikit-learn {sklearn.__version__}"
        with warnings.catch_warnings(record=True) as caught:
            estimator = joblib.load(path)
        for warning in caught:
            warnings.warn(warning.message, stacklevel=1)
        saved = {w.message.original_sklearn_version for w in caught if hasattr(w.message, "original_sklearn_version")} or {sklearn.__version__}
        method = os.environ.get("SKLEARN_METHOD", "predict")
        self.predict = getattr(estimator, method)
        self.properties = {"framework": f"scikit-learn {sklearn.__version__}", "estimator": type(estimator).__name__}
        self.properties["saved by"] = f"scikit-learn {', '.join(saved)}"
        if hasattr(estimator, "n_features_in_"):
            self.inputs = [spec(shape=[estimator.n_features_in_])]
        classes = getattr(estimator, "classes_", [])
        if hasattr(classes, "dtype"):  # a list of arrays when there are several targets
            self.outputs = [spec(classes.dtype) if method == "predict" else spec(shape=None)]


serve(ScikitLearn)
