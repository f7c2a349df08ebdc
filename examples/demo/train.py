# SPDX-License-Identifier: Apache-2.0
"""Trains the demonstration's models on scikit-learn's handwritten digits and sets images aside.

Five teams, five kinds of model, each with a fifth of the training images: none is much better than
the others, and they err on different images, which is what an ensemble needs. Usage: train.py FOLDER
"""

import json
import pathlib
import sys

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

MODELS = {
    "svm": SVC(),
    "logistic": LogisticRegression(max_iter=1000),
    "forest": RandomForestClassifier(n_estimators=50, random_state=0),
    "knn": KNeighborsClassifier(3),
    "mlp": MLPClassifier((64,), max_iter=1500, random_state=0),
}


def main(folder: pathlib.Path) -> None:
    """Writes one file for each model, a spoiled copy of each, and the images set aside."""
    images, labels = load_digits(return_X_y=True)
    images = images / 16
    train_x, test_x, train_y, test_y = train_test_split(images, labels, train_size=897, random_state=0, stratify=labels)
    parts = np.array_split(np.arange(len(train_x)), len(MODELS))
    # A shuffle that leaves no label where it was: the spoiled model is sure, and wrong.
    wrong = np.roll(np.arange(10), 3)
    for (name, model), part in zip(MODELS.items(), parts):
        joblib.dump(model.fit(train_x[part], train_y[part]), folder / f"{name}.joblib")
        joblib.dump(model.fit(train_x[part], wrong[train_y[part]]), folder / f"{name}-shuffled.joblib")
    with open(folder / "heldout.jsonl", "w", encoding="utf-8") as f:
        for x, y in zip(test_x, test_y):
            f.write(json.dumps({"image": x.tolist(), "digit": int(y)}) + "\n")
    print(f"trained {', '.join(MODELS)} on {len(parts[0])} images each; {len(test_x)} images are set aside")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
