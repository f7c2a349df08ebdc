# SPDX-License-Identifier: Apache-2.0
"""A classifier of short texts, with weights by chance, in a pipeline of Hugging Face's transformers."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import bare
import numpy as np
import torch
import transformers

torch.set_num_threads(1)
torch.manual_seed(1)
path = bare.folder() / "model"
path.mkdir()
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(200))]
(path / "vocab.txt").write_text("\n".join(words))
transformers.BertTokenizerFast(str(path / "vocab.txt"), model_max_length=64).save_pretrained(path)
config = transformers.BertConfig(vocab_size=len(words), hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512, max_position_embeddings=64)
transformers.BertForSequenceClassification(config).save_pretrained(path)
pipeline = transformers.pipeline("text-classification", model=str(path))
random = np.random.default_rng(1)
texts = [" ".join(random.choice(words[5:], 12)) for _ in range(64)]
bare.answer(path, texts, lambda batch: pipeline(list(batch), batch_size=len(batch), truncation=True))
