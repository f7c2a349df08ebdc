# SPDX-License-Identifier: Apache-2.0
"""Trains the models of the experiment "sklearn" and writes them to the folder that is given.

The data is scikit-learn's own digits, 8 x 8 pixels, enlarged to the 28 x 28 of MNIST, 0 to 1.
"""

import sys
from pathlib import Path

import joblib
import numpy as np
from scipy.ndimage import zoom
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC, LinearSVC

SIDE = 28

MODELS = {
    "linear_svm": LinearSVC(),
    "log_reg": LogisticRegression(max_iter=2000),
    # As in the paper: 50 trees of depth 16.
    "rf": RandomForestClassifier(n_estimators=50, max_depth=16, random_state=1),
    "kernel_svm": SVC(),
}


def main(folder):
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8) / 16
    images = np.stack([zoom(image, SIDE / 8, order=1) for image in images]).reshape(-1, SIDE * SIDE).astype(np.float32)
    held_out = len(images) // 5
    for name, model in MODELS.items():
        model.fit(images[held_out:], labels[held_out:])
        print(f"{name}: accuracy {model.score(images[:held_out], labels[:held_out]):.3f}", flush=True)
        joblib.dump(model, Path(folder) / f"{name}.joblib")


if __name__ == "__main__":
    main(sys.argv[1])
