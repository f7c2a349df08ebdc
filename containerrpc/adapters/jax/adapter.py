# SPDX-License-Identifier: Apache-2.0
"""Serves a function that jax.export serialized."""

import numpy as np
from clipper_container import ModelError, serve, spec


def specs(tree, avals, skip):
    from jax.tree_util import keystr, tree_leaves_with_path

    for path, aval in tree_leaves_with_path(tree.unflatten(avals)):
        if not aval.shape or isinstance(aval.shape[0], int):
            raise ModelError(f"{aval.str_short()} has no free batch: export it with jax.export.symbolic_shape")
        yield spec(aval.dtype, [d if isinstance(d, int) else -1 for d in aval.shape[1:]], keystr(path[skip:], simple=True, separator="/"))


class Jax:
    expects = "a function serialized by jax.export for this platform"

    def __init__(self, path):
        import jax.export

        jax.config.update("jax_enable_x64", True)  # so that 64-bit numbers stay what they are
        model = jax.export.deserialize(bytearray(np.fromfile(path, np.uint8)))
        self.inputs, self.outputs = list(specs(model.in_tree, model.in_avals, 1)), list(specs(model.out_tree, model.out_avals, 0))
        self.unflatten, self.call = model.in_tree.unflatten, jax.jit(lambda tree: jax.tree.leaves(model.call(*tree[0], **tree[1])))
        jax.export.export(self.call)(self.unflatten(model.in_avals))  # fails now when it cannot run on this platform
        self.properties = {"framework": f"jax {jax.__version__}"}

    def predict(self, rows):
        values = [rows[i.name] for i in self.inputs] if isinstance(rows, dict) else [rows]
        n = len(values[0])
        # Each size is compiled, so a batch is filled up to a power of two with its last row.
        filled = [np.take(v, np.arange(1 << (n - 1).bit_length()), axis=0, mode="clip") for v in values]
        return {o.name: np.asarray(leaf)[:n] for o, leaf in zip(self.outputs, self.call(self.unflatten(filled)))}


serve(Jax)
