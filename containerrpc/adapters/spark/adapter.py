# SPDX-License-Identifier: Apache-2.0
"""Serves a pipeline of Spark's MLlib on a Spark of its own, in this process's local mode.

SPARK_INPUT names the column of an input that is the only one: features (the default).
SPARK_OUTPUT names the columns to answer with, with commas between: prediction (the default), probability, ...
"""

import os

from clipper_container import serve


class Spark:
    expects = "a folder that PipelineModel.save of Spark's MLlib wrote, and Java 17 or newer on the machine"

    def __init__(self, path):
        import pyarrow
        from pyspark.ml import PipelineModel, functions
        from pyspark.sql import SparkSession

        quiet = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.default.parallelism": "1"}
        loopback = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
        self.spark = SparkSession.builder.master("local[*]").config(map={**quiet, **loopback}).getOrCreate()
        self.model, self.table, self.vector = PipelineModel.load(os.path.abspath(path)), pyarrow.table, functions.array_to_vector
        self.properties = {"framework": f"spark {self.spark.version}"}
        self.only, self.columns = os.environ.get("SPARK_INPUT", "features"), os.environ.get("SPARK_OUTPUT", "prediction").split(",")

    def predict(self, rows):
        named = rows if isinstance(rows, dict) else {self.only: rows}
        # Arrow makes a relation in the driver's memory, which Spark transforms and collects without starting a job.
        frame = self.spark.createDataFrame(self.table({name: list(values) for name, values in named.items()}))
        vectors = {name: self.vector(name) for name, kind in frame.dtypes if kind.startswith("array<") and kind != "array<string>"}
        got = self.model.transform(frame.withColumns(vectors)).select(self.columns).collect()
        return {name: [v.toArray() if hasattr(v, "toArray") else v for v in column] for name, column in zip(self.columns, zip(*got))}


serve(Spark)
