# SPDX-License-Identifier: Apache-2.0
"""A scaler and a logistic regression of Spark's MLlib on random rows."""

import bare
import numpy as np
import pyarrow
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import StandardScaler
from pyspark.ml.functions import array_to_vector
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession

settings = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.default.parallelism": "1"}
loopback = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
spark = SparkSession.builder.master("local[*]").config(map={**settings, **loopback}).getOrCreate()
rows = np.random.default_rng(1).normal(size=(512, 50))
frame = spark.createDataFrame([(Vectors.dense(x), float(x[0] > 0)) for x in rows], ["features", "label"])
stages = [StandardScaler(inputCol="features", outputCol="scaled"), LogisticRegression(featuresCol="scaled", maxIter=5)]
path = bare.folder() / "model"
Pipeline(stages=stages).fit(frame).save(str(path))
model = PipelineModel.load(str(path))


def predict(batch):
    features = spark.createDataFrame(pyarrow.table({"features": list(batch)})).withColumn("features", array_to_vector("features"))
    return model.transform(features).select("prediction").collect()


bare.answer(path, rows, predict)
