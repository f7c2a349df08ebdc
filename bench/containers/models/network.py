# SPDX-License-Identifier: Apache-2.0
"""The network of three wide layers that several frameworks serve: its weights, and rows for it."""

import numpy as np

random = np.random.default_rng(1)
sizes = [784, 2048, 2048, 10]
weights = [(random.normal(size=(n, m)) / n**0.5).astype(np.float32) for n, m in zip(sizes, sizes[1:])]
rows = random.random((512, sizes[0]), np.float32)
