# SPDX-License-Identifier: Apache-2.0
"""Models to serve with the images of adapters. It runs in an image, with what that has.

models.py NAME FOLDER saves a model at FOLDER/model and prints as JSON a batch of rows and, output by output, what
the framework itself says of them. models.py serve NAME is a server to put behind the adapters http and oip.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import numpy as np

ROWS = np.random.default_rng(1).normal(size=(20, 4))
TEXTS = ["good film", "a very bad film", "bad"]
DATA = Path("/data")


def sklearn(path):
    import joblib
    from sklearn import datasets, svm

    model = svm.SVC().fit(*datasets.load_iris(return_X_y=True))
    joblib.dump(model, path)
    return ROWS, model.predict(ROWS)


def xgboost(path):
    import xgboost

    model = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(ROWS, ROWS[:, 0] > 0), 5)
    model.save_model(f"{path}.ubj")
    Path(f"{path}.ubj").rename(path)
    return ROWS, model.predict(xgboost.DMatrix(ROWS))


def lightgbm(path):
    import lightgbm

    x = np.random.default_rng(2).normal(size=(500, 4))
    model = lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(x, x[:, 0] > 0), 5)
    model.save_model(path)
    return ROWS, model.predict(ROWS)


def tensorflow(path):
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    model.export(path)
    rows = ROWS.astype(np.float32)
    return rows, model(rows)


def pytorch(path):
    import torch

    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(1))
    rows = torch.tensor(ROWS, dtype=torch.float32)
    torch.export.save(torch.export.export(model, (rows,), dynamic_shapes=({0: torch.export.Dim("batch")},)), f"{path}.pt2")
    Path(f"{path}.pt2").rename(path)
    return rows, model(rows).detach()


def jax(path):
    import jax
    from jax import export

    rows = ROWS.astype(np.float32)
    exported = export.export(jax.jit(jax.nn.softmax))(jax.ShapeDtypeStruct(export.symbolic_shape("b, 4"), "float32"))
    path.write_bytes(exported.serialize())
    return rows, jax.nn.softmax(rows)


def huggingface(path):
    import torch
    import transformers

    path.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "a", "very"]
    (path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(path / "vocab.txt"), model_max_length=32).save_pretrained(path)
    torch.manual_seed(1)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 32}
    config = transformers.BertConfig(vocab_size=len(words), id2label={0: "sad", 1: "mixed", 2: "happy"}, initializer_range=1.0, **size)
    transformers.BertForSequenceClassification(config).save_pretrained(path)
    said = transformers.pipeline("text-classification", model=str(path))(TEXTS, batch_size=len(TEXTS))
    return TEXTS, [s["label"] for s in said], [s["score"] for s in said]


def spark(path):
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.linalg import Vectors
    from pyspark.sql import SparkSession

    local = {"spark.ui.enabled": "false", "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
    with SparkSession.builder.master("local[1]").config(map=local).getOrCreate() as session:
        frame = session.createDataFrame([(Vectors.dense(x), float(x[0] > 0)) for x in ROWS], ["features", "label"])
        model = Pipeline(stages=[LogisticRegression(maxIter=5)]).fit(frame)
        model.save(str(path))
        said = model.transform(frame).collect()
    return ROWS, [s.prediction for s in said], [s.probability.toArray() for s in said]


def onnx(path):
    import onnx.parser
    import onnxruntime

    text = '<ir_version: 9, opset_import: ["": 18]> g (float[n, 4] x) => (float[n, 4] y) {y = Softmax(x)}'
    onnx.save(onnx.parser.parse_model(text), path)
    rows = ROWS.astype(np.float32)
    return rows, onnxruntime.InferenceSession(path).run(None, {"x": rows})[0]


def caffe(path):
    """The real LeNet. Its training multiplied the pixels by 1/256."""
    import cv2

    path.mkdir()
    files = [DATA / "caffe" / name for name in ("lenet_deploy.prototxt", "lenet_iter_10000.caffemodel")]
    for file in files:
        (path / file.name).write_bytes(file.read_bytes())
    samples = sorted((DATA / "caffe/samples").glob("*.png"))
    images = np.stack([cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in samples])[:, None].astype(np.float32)
    net = cv2.dnn.readNetFromCaffe(*map(str, files))
    net.setInput(images / np.float32(256))
    return images, net.forward()


def htk(path):
    """What HTK's own HVite printed."""
    from clipper_htk import parse_mlf

    path.mkdir()
    for file in (*(DATA / "htk").glob("*.*"), DATA / "htk/speech/config.hcopy"):
        (path / file.name).write_bytes(file.read_bytes())
    (path / "hvite.args").write_text("-C config.hcopy -H hmmsdef.hmm -w net.slf voca.txt hmmlist.txt\n")
    printed = {Path(name).stem: labels for name, labels in parse_mlf((DATA / "htk/rec.mlf").read_text()).items()}
    files = [(DATA / f"htk/mfcc/{name}.mfc").read_bytes() for name in printed]
    labels = [[label.text for label in said] for said in printed.values()]
    return files, labels, [[(label.start, label.end) for label in said] for said in printed.values()]


def closure(path):
    import clipper

    scale = 3
    clipper.save(lambda rows: rows.sum(axis=1) * scale, path)
    return ROWS, ROWS.sum(axis=1) * scale


def sums(path):
    """What the servers below answer."""
    return ROWS, ROWS @ [1, 2, 3, 4] + 5


def serve_http():
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["instances"]
            body = json.dumps({"predictions": (np.array(rows) @ [1, 2, 3, 4] + 5).tolist()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    ThreadingHTTPServer(("", 8000), Handler).serve_forever()


def serve_oip():
    from concurrent.futures import ThreadPoolExecutor

    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    class Server(service_pb2_grpc.GRPCInferenceServiceServicer):
        def ModelMetadata(self, request, context):
            tensor = service_pb2.ModelMetadataResponse.TensorMetadata
            return service_pb2.ModelMetadataResponse(
                name=request.name, inputs=[tensor(name="x", datatype="FP64", shape=[-1, 4])], outputs=[tensor(name="y", datatype="FP64", shape=[-1])]
            )

        def ModelInfer(self, request, context):
            said = np.frombuffer(request.raw_input_contents[0]).reshape(-1, 4) @ [1, 2, 3, 4] + 5
            output = service_pb2.ModelInferResponse.InferOutputTensor(name="y", datatype="FP64", shape=said.shape)
            return service_pb2.ModelInferResponse(model_name=request.model_name, outputs=[output], raw_output_contents=[said.tobytes()])

    server = grpc.server(ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Server(), server)
    server.add_insecure_port("0.0.0.0:8001")
    server.start()
    server.wait_for_termination()


def plain(value):
    """What JSON can hold."""
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return np.asarray(value).tolist() if not isinstance(value, (str, tuple)) else value


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        globals()["serve_" + sys.argv[2]]()
    rows, *want = globals()[sys.argv[1]](Path(sys.argv[2]) / "model")
    dtype = str(np.asarray(rows).dtype) if not isinstance(rows, list) else None
    print(json.dumps({"dtype": dtype, "rows": plain(rows), "want": [plain(w) for w in want]}))
