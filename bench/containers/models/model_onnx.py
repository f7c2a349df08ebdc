# SPDX-License-Identifier: Apache-2.0
"""A network of three wide layers in ONNX Runtime."""

import bare
import onnx
import onnxruntime
from network import rows, sizes, weights
from onnx import TensorProto, helper, numpy_helper

nodes, name = [], "x"
for i in range(len(weights)):
    nodes += [helper.make_node("MatMul", [name, f"w{i}"], [f"m{i}"]), helper.make_node("Tanh", [f"m{i}"], [f"y{i}"])]
    name = f"y{i}"
ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, size]) for n, size in (("x", sizes[0]), (name, sizes[-1]))]
graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)])
path = bare.folder() / "model.onnx"
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
session = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
bare.answer(path, rows, lambda batch: session.run(None, {"x": batch}))
