# SPDX-License-Identifier: Apache-2.0
"""Serves a Caffe network with OpenCV's DNN module.

CAFFE_MEAN (one number, or one for each channel) is subtracted from the input, which is then multiplied by CAFFE_SCALE.
"""

import os
import re
from pathlib import Path

import numpy as np
from clipper_container import serve, spec


class Caffe:
    expects = "a folder that holds exactly one .prototxt, which declares the input's shape, and its one .caffemodel"

    def __init__(self, path):
        import cv2

        (prototxt,), (weights,) = Path(path).glob("*.prototxt"), Path(path).glob("*.caffemodel")
        self.net = cv2.dnn.readNetFromCaffe(str(prototxt), str(weights))
        self.scale, mean = float(os.environ.get("CAFFE_SCALE", 1)), os.environ.get("CAFFE_MEAN", "0").split(",")
        self.mean = [float(m) for m in mean * 4][:4]
        shape = [int(d) for d in re.findall(r"\d+", re.search(r"((input_)?dim:\s*\d+\s*)+", prototxt.read_text())[0])][1:]
        # OpenCV makes the layers at the first use: now is the time to find what is wrong with them.
        self.inputs, self.outputs = [spec(shape=shape)], [spec("float32", self.predict(np.zeros([1, *shape])).shape[1:])]
        self.properties = {"framework": f"opencv {cv2.__version__}"}

    def predict(self, rows):
        self.net.setInput(np.ascontiguousarray(rows, np.float32), "", self.scale, self.mean)
        return self.net.forward()


serve(Caffe)
