# SPDX-License-Identifier: Apache-2.0
"""A network of three wide layers in TensorFlow, called by the C API: tensorflow_c.cc times it."""

import os
import subprocess
from pathlib import Path

import bare
import tensorflow as tf
from network import rows, sizes, weights
from tensorflow.core.protobuf import saved_model_pb2


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
rows.tofile(bare.folder() / "rows")
(graph,) = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs
signature = graph.signature_def["serving_default"]
(taken,), (given,) = signature.inputs.values(), signature.outputs.values()

library, program = tf.sysconfig.get_lib(), str(bare.folder() / "tensorflow_c")
source = str(Path(__file__).with_name("tensorflow_c.cc"))
options = ["-O2", "-std=c++17", "-isystem", tf.sysconfig.get_include(), f"-L{library}", f"-Wl,-rpath,{library}"]
subprocess.run(["c++", source, "-o", program, *options, "-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"], check=True)
os.execv(program, [program, str(path), str(bare.folder() / "rows"), str(sizes[0]), taken.name, given.name, library])
