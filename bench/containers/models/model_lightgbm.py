# SPDX-License-Identifier: Apache-2.0
"""Boosted trees of LightGBM on random rows."""

import bare
import lightgbm
import numpy as np

rows = np.random.default_rng(1).random((4096, 100))
target = rows @ np.arange(100)
path = bare.folder() / "model.txt"
lightgbm.train({"num_leaves": 255, "num_threads": 1, "verbose": -1}, lightgbm.Dataset(rows, target), 300).save_model(path)
bare.answer(path, rows, lightgbm.Booster(model_file=path).predict)
