# SPDX-License-Identifier: Apache-2.0
"""A network of three wide layers in TensorFlow, called in Python."""

import bare
import tensorflow as tf
from network import rows, sizes, weights


class Network(tf.Module):
    def __init__(self):
        self.layers = [tf.Variable(w) for w in weights]

    @tf.function(input_signature=[tf.TensorSpec([None, sizes[0]], tf.float32)])
    def __call__(self, x):
        for w in self.layers:
            x = tf.tanh(x @ w)
        return x


path = bare.folder() / "model"
tf.saved_model.save(Network(), str(path))
model = tf.saved_model.load(str(path))
call = model.signatures["serving_default"]


def predict(batch):
    return [output.numpy() for output in call(tf.constant(batch)).values()]


bare.answer(path, rows, predict)
