# SPDX-License-Identifier: Apache-2.0
"""The LeNet in the folder of CLIPPER_DATA, on random images."""

import os
import shutil
from pathlib import Path

import bare
import cv2
import numpy as np

lenet = Path(os.environ["CLIPPER_DATA"]) / "caffe"
path = bare.folder() / "lenet"
path.mkdir()
shutil.copy(lenet / "lenet_deploy.prototxt", path / "deploy.prototxt")
shutil.copy(lenet / "lenet_iter_10000.caffemodel", path / "weights.caffemodel")
cv2.setNumThreads(1)
network = cv2.dnn.readNetFromCaffe(str(path / "deploy.prototxt"), str(path / "weights.caffemodel"))


def predict(batch):
    network.setInput(batch)
    return network.forward()


bare.answer(path, np.random.default_rng(1).random((512, 1, 28, 28), np.float32), predict)
