# SPDX-License-Identifier: Apache-2.0
"""A network of three wide layers in ONNX Runtime."""

import bare
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(1)
sizes = [784, 2048, 2048, 10]
nodes, weights, name = [], [], "x"
for i, (n, m) in enumerate(zip(sizes, sizes[1:])):
    weights.append(numpy_helper.from_array((random.normal(size=(n, m)) / n**0.5).astype(np.float32), f"w{i}"))
    nodes += [helper.make_node("MatMul", [name, f"w{i}"], [f"m{i}"]), helper.make_node("Tanh", [f"m{i}"], [f"y{i}"])]
    name = f"y{i}"
ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, size]) for n, size in (("x", sizes[0]), (name, sizes[-1]))]
graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], weights)
path = bare.folder() / "model.onnx"
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
session = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
bare.answer(path, random.random((512, sizes[0]), np.float32), lambda rows: session.run(None, {"x": rows}))
