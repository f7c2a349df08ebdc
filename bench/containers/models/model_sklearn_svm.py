# SPDX-License-Identifier: Apache-2.0
"""A support vector machine with a radial kernel on scikit-learn's digits."""

import bare
import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.svm import SVC

images, labels = load_digits(return_X_y=True)
path = bare.folder() / "model.joblib"
joblib.dump(SVC().fit(images, labels), path)
bare.answer(path, np.resize(images, (512, 64)), joblib.load(path).predict)
