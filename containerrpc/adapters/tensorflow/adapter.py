# SPDX-License-Identifier: Apache-2.0
"""Serves a signature of a TensorFlow SavedModel.

TENSORFLOW_SIGNATURE names it: serving_default when it is not set.
"""

import os

import numpy as np
from clipper_container import serve, spec


def specs(tensors):
    for name, tensor in tensors.items():
        tensor.shape[:1].assert_is_compatible_with([1])  # the batch is free or 1
        # A string of TensorFlow is text or bytes; the name says it, as in TensorFlow Serving.
        dtype = "bytes" if tensor.dtype.name == "string" and name.endswith("_bytes") else tensor.dtype.name
        yield spec(dtype, tensor.shape.rank and [-1 if d is None else d for d in tensor.shape[1:]], name)


class TensorFlow:
    expects = "a SavedModel's folder with the signature of TENSORFLOW_SIGNATURE, each tensor a batch of free size or of 1"

    def __init__(self, path):
        import tensorflow

        self.tf, self.model = tensorflow, tensorflow.saved_model.load(path)  # a signature does not keep its variables alive
        self.signature = self.model.signatures[os.environ.get("TENSORFLOW_SIGNATURE", "serving_default")]
        self.taken = self.signature.structured_input_signature[1]
        self.inputs, self.outputs = list(specs(self.taken)), list(specs(self.signature.structured_outputs))
        self.max_batch_rows = int(any(tensor.shape[:1] == [1] for tensor in self.taken.values()))
        self.properties = {"framework": f"tensorflow {tensorflow.__version__}", "saved by": f"tensorflow {self.model.tensorflow_version}"}

    def predict(self, rows):
        named = rows if isinstance(rows, dict) else dict(zip(self.taken, [rows]))
        tensors = {name: self.tf.ensure_shape(values, self.taken[name].shape) for name, values in named.items()}
        arrays = {name: values.numpy() for name, values in self.signature(**tensors).items()}
        return {n: np.char.decode(a.astype(bytes)) if a.dtype == object and not n.endswith("_bytes") else a for n, a in arrays.items()}


serve(TensorFlow)
