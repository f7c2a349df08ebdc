# SPDX-License-Identifier: Apache-2.0
"""Boosted trees of XGBoost on random rows."""

import bare
import numpy as np
import xgboost

rows = np.random.default_rng(1).random((4096, 100), np.float32)
target = rows @ np.arange(100, dtype=np.float32)
path = bare.folder() / "model.ubj"
xgboost.train({"max_depth": 8, "nthread": 1}, xgboost.DMatrix(rows, target), 300).save_model(path)
model = xgboost.Booster(model_file=path)
bare.answer(path, rows, model.inplace_predict)
