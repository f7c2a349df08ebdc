# SPDX-License-Identifier: Apache-2.0
"""Serves an ONNX model with ONNX Runtime."""

import numpy as np
from clipper_container import ModelError, serve, spec


def specs(path, nodes):
    for node in nodes:
        if not node.type.startswith("tensor(") or not node.shape or isinstance(node.shape[0], int) and node.shape[0] != 1:
            raise ModelError(f"cannot load the model {path}: {node.name!r} is a {node.type} of shape {node.shape}; expected a tensor whose first dimension is the batch, of any size or 1")
    types = [{"float": "float32", "double": "float64"}.get(node.type[7:-1], node.type[7:-1]) for node in nodes]
    return [spec(t, [d if isinstance(d, int) else -1 for d in node.shape[1:]], node.name) for t, node in zip(types, nodes)]


class Onnx:
    expects = "an ONNX model that this version of ONNX Runtime can read"

    def __init__(self, path):
        import onnxruntime

        self.session = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
        self.inputs, self.outputs = specs(path, self.session.get_inputs()), specs(path, self.session.get_outputs())
        self.max_batch_rows = int(any(node.shape[0] == 1 for node in self.session.get_inputs()))
        self.properties = {"framework": f"onnxruntime {onnxruntime.__version__}"}

    def predict(self, rows):
        named = rows if isinstance(rows, dict) else {self.inputs[0].name: rows}
        outputs = self.session.run(None, {name: np.asarray(values) for name, values in named.items()})
        return {out.name: values for out, values in zip(self.outputs, outputs)}


serve(Onnx)
