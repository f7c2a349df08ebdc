# SPDX-License-Identifier: Apache-2.0
"""A network of three wide layers in JAX, exported."""

import bare
import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from network import rows, weights


def network(x):
    for w in weights:
        x = jnp.tanh(x @ w)
    return x


(batch,) = export.symbolic_shape("batch")
exported = export.export(jax.jit(network))(jax.ShapeDtypeStruct((batch, rows.shape[1]), np.float32))
path = bare.folder() / "model.jax"
path.write_bytes(exported.serialize())
call = jax.jit(exported.call)
bare.answer(path, rows, lambda batch: np.asarray(call(batch)))
