# SPDX-License-Identifier: Apache-2.0
"""Serves a PyTorch model that torch.jit.save or torch.export.save wrote, on the first GPU that PyTorch sees or else on the CPU."""

from clipper_container import ModelError, serve, spec


class PyTorch:
    expects = "a file of torch.jit.save or torch.export.save, not of torch.save, and a version of PyTorch that can read it"

    def __init__(self, path):
        import torch.export.passes

        self.torch, self.device = torch, "cuda" if torch.cuda.is_available() else "cpu"
        # The content tells the format, not the name: this member is TorchScript's.
        if "constants.pkl" in torch._C.PyTorchFileReader(path).get_all_records():
            model, self.layout = torch.jit.load(path, map_location=self.device).eval(), None
            self.inputs = [spec(shape=None, name=a.name) for a in model.forward.schema.arguments[1:] if not a.has_default_value()]
        else:
            model, self.layout = (program := torch.export.passes.move_to_device_pass(torch.export.load(path), self.device)).module(), program.call_spec.in_spec
            taken = [(n.name, n.meta["val"]) for n in program.graph.nodes if n.name in program.graph_signature.user_inputs]
            if fixed := [f"{name} {list(t.shape)}" for name, t in taken if isinstance(t.shape[0], int)]:
                raise ModelError(f"the first dimension is the batch and is fixed in {', '.join(fixed)}: export it with dynamic_shapes")
            self.max_batch_rows = min((int(r.upper) for d, r in program.range_constraints.items() if r.upper.is_Integer and d in {t.shape[0].node.expr for _, t in taken}), default=0)
            self.inputs = [spec(str(t.dtype)[6:], [d if isinstance(d, int) else -1 for d in t.shape[1:]], name) for name, t in taken]
        self.call, self.properties = torch.inference_mode()(model.__call__), {"framework": f"torch {torch.__version__}"}

    def predict(self, rows):
        tensors = [self.torch.tensor(rows[i.name] if len(self.inputs) > 1 else rows, device=self.device) for i in self.inputs]
        # TorchScript does not say its types. JSON's numbers are float64 then, and PyTorch's own float32.
        tensors = [t.float() if t.dtype == self.torch.float64 and not self.layout else t for t in tensors]
        args, kwargs = self.torch.utils._pytree.tree_unflatten(tensors, self.layout) if self.layout else (tensors, {})
        answer = self.torch.utils._pytree.tree_map(lambda t: t.cpu(), self.call(*args, **kwargs))
        return {f"output_{i}": t for i, t in enumerate(answer)} if isinstance(answer, (tuple, list)) else answer


serve(PyTorch)
