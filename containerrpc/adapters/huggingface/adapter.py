# SPDX-License-Identifier: Apache-2.0
"""Serves a text classifier that a pipeline of Hugging Face's transformers saved.

HUGGINGFACE_TOP_K is the number of labels of each answer, the most probable first: 1 by default.
"""

import os

from clipper_container import ModelError, serve, spec


class HuggingFace:
    expects = "a folder of save_pretrained with a model for text classification and its tokenizer, and a HUGGINGFACE_TOP_K of 1 or more"

    def __init__(self, path):
        os.environ["HF_HUB_OFFLINE"] = "1"  # what the folder lacks is an error, and not fetched
        import transformers

        self.top = int(os.environ.get("HUGGINGFACE_TOP_K", 1))
        if self.top < 1 or not os.path.isdir(path):
            raise ModelError(f"HUGGINGFACE_TOP_K is {self.top}" if self.top < 1 else "there is no such folder")
        self.pipeline = transformers.pipeline("text-classification", model=path)
        shape = [] if self.top == 1 else [min(self.top, self.pipeline.model.config.num_labels)]
        self.inputs, self.outputs = [spec("string", name="text")], [spec("string", shape, "label"), spec("float64", shape, "score")]
        self.properties = {"framework": f"transformers {transformers.__version__}", "model": type(self.pipeline.model).__name__}

    def predict(self, rows):
        answers = self.pipeline(rows, top_k=self.top, batch_size=len(rows), truncation=True)
        columns = {key: [[choice[key] for choice in answer] for answer in answers] for key in ("label", "score")}
        return columns if self.top > 1 else {key: [row[0] for row in rows] for key, rows in columns.items()}


serve(HuggingFace)
