# SPDX-License-Identifier: Apache-2.0
"""A random forest on scikit-learn's digits."""

import bare
import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

images, labels = load_digits(return_X_y=True)
path = bare.folder() / "model.joblib"
joblib.dump(RandomForestClassifier(n_estimators=50, random_state=1).fit(images, labels), path)
bare.answer(path, np.resize(images, (4096, 64)), joblib.load(path).predict)
