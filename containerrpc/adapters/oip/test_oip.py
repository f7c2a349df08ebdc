# SPDX-License-Identifier: Apache-2.0
"""Predictions through MLServer and KServe are the model's own, value for value.

The servers run in environments of their own, which tools/venv.sh makes.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from clipper_proto.v1 import tensor_pb2
from clipper_proto.v1.model_container_service_pb2 import DescribeRequest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from clipper_container import tensors
from clipper_container.testing import ContainerProcess, deployed

FOLDER = Path(__file__).parent
ADAPTER = FOLDER / "adapter.py"
ROOT = FOLDER.parents[2]

ROWS = np.random.default_rng(1).normal(size=(100, 4))

# A model of scikit-learn, saved in the server's environment with what it says itself.
TRAIN = """
import sys, joblib, numpy as np
from sklearn.linear_model import LinearRegression
rows = np.load(sys.argv[1] + "/rows.npy")
model = LinearRegression().fit(rows, rows @ [1, 2, 3, 4] + 5)
joblib.dump(model, sys.argv[1] + "/linear/model.joblib")
np.save(sys.argv[1] + "/want.npy", model.predict(rows))
np.save(sys.argv[1] + "/one.npy", model.predict(rows[:1]))
"""

# A model of MLServer's for text, which waits when it is told to.
SHOUT = """
import time
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceResponse

class Shout(MLModel):
    async def predict(self, payload):
        texts = StringCodec.decode_input(payload.inputs[0])
        if "slow" in texts:
            time.sleep(2)
        if "bad" in texts:
            raise ValueError("a bad word")
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("shouted", [t.upper() for t in texts])])
"""

# KServe: two inputs and two outputs, which it answers in fields by type.
KSERVE = """
import sys
from kserve import InferOutput, InferResponse, Model, ModelServer

class Sums(Model):
    def __init__(self):
        super().__init__("sums")
        self.ready = True
    async def get_input_types(self):
        return [{"name": "a", "datatype": "FP32", "shape": [-1, 3]}, {"name": "b", "datatype": "INT64", "shape": [-1]}]
    async def get_output_types(self):
        return [{"name": "sum", "datatype": "FP32", "shape": [-1, 3]}, {"name": "twice", "datatype": "INT64", "shape": [-1]}]
    def predict(self, payload, headers=None, response_headers=None):
        a, b = (i.as_numpy() for i in payload.inputs)
        total = a + b[:, None].astype("float32")
        outputs = [InferOutput("sum", list(total.shape), "FP32"), InferOutput("twice", list(b.shape), "INT64")]
        for output, values in zip(outputs, (total, 2 * b)):
            output.set_data_from_numpy(values, binary_data=False)
        return InferResponse(payload.id, self.name, outputs)

if __name__ == "__main__":
    ModelServer(http_port=int(sys.argv[1]), grpc_port=int(sys.argv[2]), enable_grpc=True, workers=1).start([Sums()])
"""


def python_of(name):
    requirements = str(FOLDER / f"requirements-{name}.txt")
    return subprocess.run([str(ROOT / "tools" / "venv.sh"), f"oip-{name}", requirements], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def free_ports(n):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextmanager
def running(command, folder, port, model):
    """Runs a server until the model is ready."""
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen([str(c) for c in command], cwd=folder, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        with InferenceServerClient(f"127.0.0.1:{port}", channel_args=[("grpc.max_reconnect_backoff_ms", 200)]) as client:
            while True:
                try:
                    if client.is_model_ready(model):
                        break
                except InferenceServerException:
                    pass
                assert process.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text()
                time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory):
    """Returns how to run MLServer with a model of scikit-learn and one of its own, its port and the folder."""
    folder = tmp_path_factory.mktemp("mlserver")
    python = python_of("mlserver")
    http, grpc, metrics = free_ports(3)
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics, "parallel_workers": 0}
    (folder / "settings.json").write_text(json.dumps(settings))
    np.save(folder / "rows.npy", ROWS)
    tensor = {"name": "x", "datatype": "FP64", "shape": [-1, 4]}
    for name, more in {
        "linear": {"implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": "./model.joblib", "version": "v1"}, "inputs": [tensor]},
        "shout": {"implementation": "shout.Shout"},
    }.items():
        (folder / name).mkdir()
        (folder / name / "model-settings.json").write_text(json.dumps({"name": name, **more}))
    (folder / "shout" / "shout.py").write_text(SHOUT)
    subprocess.run([python, "-c", TRAIN, str(folder)], check=True)
    command = [Path(python).with_name("mlserver"), "start", folder]
    return lambda: running(command, folder, grpc, "linear"), grpc, folder


def adapter(folder, port, model, **more):
    return ContainerProcess(ADAPTER, folder, environment={"OIP_ADDRESS": f"127.0.0.1:{port}", "OIP_MODEL": model, **more})


def described(container):
    return container.stub.Describe(DescribeRequest()).signature


def test_a_model_of_scikit_learn_in_mlserver(tmp_path, mlserver):
    run, port, folder = mlserver
    with run(), adapter(tmp_path, port, "linear", OIP_VERSION="v1").wait_until_serving() as container:
        np.testing.assert_array_equal(container.outputs(ROWS).ravel(), np.load(folder / "want.npy"))
        np.testing.assert_array_equal(container.outputs(ROWS[:1]).ravel(), np.load(folder / "one.npy"))
        (taken,) = described(container).inputs
        assert (taken.name, taken.data_type, taken.shape) == ("x", tensor_pb2.DATA_TYPE_FLOAT64, [4])
        (wrong,), _ = tensors.encode(ROWS[:2, :3], 2)
        assert "3 features" in container.predict(wrong, rows=2).error.message
        assert len(container.outputs(ROWS[:2])) == 2


def test_conformance(tmp_path, mlserver):
    run, port, _ = mlserver
    with run(), adapter(tmp_path, port, "linear").wait_until_serving() as container:
        container.conforms(ROWS[0].tolist())


def test_text_slowness_and_a_server_that_was_away(tmp_path, mlserver):
    run, port, _ = mlserver
    with run() as server:
        container = adapter(tmp_path, port, "shout", OIP_TIMEOUT="1").wait_until_serving()
        with container:
            assert container.outputs(["one", "zwei", "drei und ß"]) == [[b"ONE"], [b"ZWEI"], ["DREI UND SS".encode()]]
            bad, _ = tensors.encode(["good", "bad"], 2)
            assert "a bad word" in container.predict(*bad, rows=2).error.message
            ragged, _ = tensors.encode([np.zeros(2), np.zeros(3)], 2)
            assert "same shape" in container.predict(*ragged, rows=2).error.message
            slow, _ = tensors.encode(["slow"], 1)
            assert "Deadline Exceeded" in container.predict(*slow, rows=1).error.message
            server.send_signal(signal.SIGKILL)
            server.wait()
            one, _ = tensors.encode(["one"], 1)
            assert "UNAVAILABLE" in container.predict(*one, rows=1).error.message
            with run():
                deadline = time.monotonic() + 30
                while container.predict(*one, rows=1).HasField("error"):
                    assert time.monotonic() < deadline, container.log()
                    time.sleep(0.1)
                assert container.outputs(["one"]) == [[b"ONE"]]


def test_several_inputs_in_kserve(tmp_path):
    python = python_of("kserve")
    http, grpc = free_ports(2)
    (tmp_path / "server.py").write_text(KSERVE)
    with running([python, "server.py", http, grpc], tmp_path, grpc, "sums"):
        with adapter(tmp_path, grpc, "sums").wait_until_serving() as container:
            signature = described(container)
            assert [(t.name, t.data_type, list(t.shape)) for t in signature.inputs] == [("a", tensor_pb2.DATA_TYPE_FLOAT32, [3]), ("b", tensor_pb2.DATA_TYPE_INT64, [])]
            assert [t.name for t in signature.outputs] == ["sum", "twice"]
            for n in (1, 5):
                a, b = np.arange(3 * n, dtype=np.float32).reshape(n, 3) / 7, np.arange(n)
                inputs, _ = tensors.encode({"a": a, "b": b}, n)
                response = container.predict(*inputs, rows=n)
                assert not response.HasField("error"), response.error
                total, twice = (np.frombuffer(o.data, kind) for o, kind in zip(response.outputs, ("f4", "i8")))
                np.testing.assert_array_equal(total.reshape(n, 3), a + b[:, None].astype("f4"))
                np.testing.assert_array_equal(twice, 2 * b)
        (tmp_path / "unknown").mkdir()
        with adapter(tmp_path / "unknown", grpc, "nope") as container:
            # The model may be loaded later, so another attempt may succeed.
            assert container.process.wait(60) == 1
            last = container.log().splitlines()[-1]
            assert "no model 'nope'" in last and f"127.0.0.1:{grpc}" in last


def test_no_server(tmp_path):
    (port,) = free_ports(1)
    with adapter(tmp_path, port, "linear") as container:
        assert container.process.wait(60) == 1
        assert f"127.0.0.1:{port}" in container.log().splitlines()[-1]


@pytest.mark.parametrize("settings", [{}, {"OIP_ADDRESS": "127.0.0.1:1"}, {"OIP_ADDRESS": "127.0.0.1:1", "OIP_MODEL": "m", "OIP_TIMEOUT": "soon"}])
def test_settings_that_are_missing_or_wrong(tmp_path, settings):
    with ContainerProcess(ADAPTER, tmp_path, environment=settings) as container:
        assert container.process.wait(60) == 78
        assert "expected OIP_ADDRESS" in container.log().splitlines()[-1]


def test_deployed(tmp_path, mlserver):
    run, port, folder = mlserver
    with run(), deployed(ADAPTER, tmp_path, default=0, OIP_ADDRESS=f"127.0.0.1:{port}", OIP_MODEL="linear") as ask:
        assert ask(ROWS[0].tolist()) == pytest.approx(np.load(folder / "one.npy").ravel()[0])
