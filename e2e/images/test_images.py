# SPDX-License-Identifier: Apache-2.0
"""Each image serves a real model through the launcher docker, and its predictions are the framework's own.

Runs in tools/test-images.sh, which builds the images. CLIPPER_BINARY names the program, CLIPPER_IMAGES the adapters.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import threading
import uuid
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from clipper_proto.v1 import model_container_service_pb2 as container_pb2
from clipper_proto.v1 import model_container_service_pb2_grpc as container_grpc

from clipper_container import tensors
from clipper_container.testing import PATIENCE

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
DATA = Path(os.environ.get("CLIPPER_DATA", ROOT.parent / "shared" / "data")).resolve()
LISTENERS = ("frontend-http", "frontend-grpc", "frontend-admin-http", "frontend-admin-grpc")

# Adapters in C++ serve the models of those in Python, which make them.
MAKERS = {"onnx-cpp": "onnx", "caffe-cpp": "caffe", "tensorflow-cpp": "tensorflow"}
NEEDS_DATA = {"caffe", "caffe-cpp", "htk"}
SERVERS = {
    "http": {"HTTP_URL": "http://server-http:8000/predict"},
    "oip": {"OIP_ADDRESS": "server-oip:8001", "OIP_MODEL": "sums"},
}
ENVIRONMENT = {
    **SERVERS,
    "caffe": {"CAFFE_SCALE": "0.00390625"},
    "caffe-cpp": {"CAFFE_SCALE": "0.00390625"},
    "spark": {"SPARK_OUTPUT": "prediction,probability"},
}
# Its answer is no label, number or scores, so that no application can ask it.
NO_APPLICATION = {"htk"}


def run(*command):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """A Clipper of its own, and the network that its replicas are in."""
    folder = tmp_path_factory.mktemp("clipper")
    name = "images-" + uuid.uuid4().hex[:8]
    run("docker", "network", "create", name)
    command = [os.environ["CLIPPER_BINARY"], "up", "--data-dir", folder / "data", *(f"--{listener}-listen=127.0.0.1:0" for listener in LISTENERS)]
    command += ["--abstraction-launcher=docker", f"--abstraction-docker-installation={name}", f"--abstraction-docker-network={name}"]
    try:
        with subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
            log, draining = [], threading.Thread(target=lambda: log.extend(process.stdout))
            try:
                for line in process.stdout:
                    log.append(line)
                    if "msg=ready" in line:
                        break
                draining.start()
                listening = dict(re.findall(r'msg=listening server="?([^"\n]*?)"? address=(\S+)', "".join(log)))
                addresses = [f"CLIPPER_ADDRESS={listening['queries']}", f"CLIPPER_ADMIN_ADDRESS={listening['administration']}"]
                yield SimpleNamespace(name=name, clipper=lambda *arguments: run("env", *addresses, os.environ["CLIPPER_BINARY"], *arguments))
            finally:
                process.terminate()
                if draining.ident:
                    draining.join()
        left = run("docker", "ps", "-aq", "--filter", f"label=clipper.installation={name}")
        assert left == "", "a server that stops in good order stops its containers"
    finally:
        run("docker", "network", "rm", name)


@pytest.fixture
def server(request, system):
    """What an adapter without a saved model is put before."""
    adapter = request.getfixturevalue("adapter")
    if adapter not in SERVERS:
        yield
        return
    command = ("docker", "run", "--detach", "--rm", "--network", system.name, "--network-alias", f"server-{adapter}", "--volume", f"{FOLDER}:/images:ro")
    container = run(*command, f"clipper-{adapter}", "python", "/images/models.py", "serve", adapter).strip()
    yield
    run("docker", "rm", "--force", container)


def make(adapter, folder, network):
    """Makes a model in the image, so that it is of the image's very versions, and returns the rows and what the framework says."""
    maker = MAKERS.get(adapter, adapter)
    command = ["docker", "run", "--rm", "--user", "0", "--network", network, "--env", "PYTHONPATH=/sdk", "--env", "HF_HUB_OFFLINE=1"]
    command += ["--volume", f"{FOLDER}:/images:ro", "--volume", f"{ROOT}/sdk/python/src:/sdk:ro", "--volume", f"{folder}:/made"]
    if adapter in NEEDS_DATA:
        command += ["--volume", f"{DATA}:/data:ro"]
    said = run(*command, f"clipper-{maker}", "python", "/images/models.py", "sums" if adapter in SERVERS else maker, "/made")
    made = json.loads(said.splitlines()[-1])
    rows = [base64.b64decode(row["base64"]) if isinstance(row, dict) else row for row in made["rows"]]
    return np.array(rows, made["dtype"]) if made["dtype"] else rows, made["want"]


def check(got, want):
    assert len(got) == len(want)
    for a, b in zip(got, want):
        a, b = np.asarray(a), np.asarray(b)
        if a.dtype.kind in "UO":
            np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("adapter", os.environ["CLIPPER_IMAGES"].split())
def test_serves(adapter, server, system, tmp_path):
    if adapter in NEEDS_DATA and not DATA.exists():
        pytest.skip(f"no data in {DATA}: set CLIPPER_DATA")
    rows, want = make(adapter, tmp_path, system.name)
    source = [] if adapter in SERVERS else ["--path", tmp_path / "model"]
    settings = [f"--env={name}={value}" for name, value in ENVIRONMENT.get(adapter, {}).items()]
    system.clipper("model", "deploy", adapter, "--version", "1", "--framework", adapter, *source, *settings)

    # The container itself, value for value, all outputs.
    (container,) = run("docker", "ps", "-q", "--filter", f"label=clipper.installation={system.name}", "--filter", f"label=clipper.model={adapter}").split()
    address = run("docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container).strip() + ":7000"
    inputs, _ = tensors.encode(rows, len(rows))
    with grpc.insecure_channel(address) as channel:
        stub = container_grpc.ModelContainerServiceStub(channel)
        (response,) = stub.Predict(iter([container_pb2.PredictRequest(id=1, rows=len(rows), inputs=inputs)]), timeout=PATIENCE)
    assert not response.HasField("error") and not response.row_errors, response
    outputs = [tensors.decode(container_pb2.PredictRequest(rows=len(rows), inputs=[output])) for output in response.outputs]
    assert len(outputs) >= len(want)
    for got, expected in zip(outputs, want):
        check(got, expected)
    # A recogniser takes no input that is made up.
    sample = tmp_path / "sample.json"
    if isinstance(rows[0], bytes):
        sample.write_text(json.dumps({"b64": base64.b64encode(rows[0]).decode()}))
    system.clipper("container", "check", address, *([f"--sample=@{sample}"] if sample.exists() else []))

    if adapter not in NO_APPLICATION:
        batch = tmp_path / "batch.jsonl"
        batch.write_text("".join(json.dumps(row) + "\n" for row in np.asarray(rows).tolist()))
        check(ask(system, adapter, batch, want[0][0]), want[0])
    system.clipper("model", "delete", adapter)


def ask(system, adapter, batch, like):
    """Asks an application, as a user does."""
    if isinstance(like, list):
        kind = ["--output=scores", "--default=" + json.dumps([0] * len(like))]
    elif isinstance(like, float):
        kind = ["--output=number", "--default=0", "--range=-1000:1000"]
    else:
        kind = ["--output=label", "--default=-1" if isinstance(like, int) else "--default=none"]
    system.clipper("app", "create", adapter, "--models", adapter, "--slo", "30s", *kind)
    answers = [line.split("\t") for line in system.clipper("query", adapter, "--batch", batch).splitlines()]
    system.clipper("app", "delete", adapter)
    assert not [answer for answer in answers if "default" in answer[1:]], answers
    return [answer[0] if isinstance(like, str) else json.loads(answer[0]) for answer in answers]
