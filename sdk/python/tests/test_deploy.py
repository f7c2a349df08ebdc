# SPDX-License-Identifier: Apache-2.0
"""Functions deployed to a real Clipper and queried over REST. CLIPPER_BINARY names the program."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from clipper_proto.v1 import model_service_pb2 as model_pb2

import clipper

ADAPTERS = Path(__file__).parents[3] / "containerrpc" / "adapters"
LISTENERS = ("frontend-http", "frontend-grpc", "frontend-admin-http", "frontend-admin-grpc")


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """A Clipper of its own: where it serves queries and administration, and a client."""
    folder = tmp_path_factory.mktemp("clipper")
    command = [os.environ["CLIPPER_BINARY"], "up", "--data-dir", str(folder / "data"), "--abstraction-python", sys.executable]
    command += ["--abstraction-adapter-dir", str(ADAPTERS), *(f"--{name}-listen=127.0.0.1:0" for name in LISTENERS)]
    with subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        log = []
        for line in process.stdout:
            log.append(line)
            if "msg=ready" in line:
                break
        draining = threading.Thread(target=lambda: log.extend(process.stdout))
        draining.start()
        listening = dict(re.findall(r'msg=listening server="?([^"\n]*?)"? address=(\S+)', "".join(log)))
        try:
            with clipper.Client(listening["queries"], listening["administration"]) as client:
                yield SimpleNamespace(client=client, addresses=listening, queries=listening["queries (REST)"], admin=listening["administration (REST)"])
        finally:
            process.terminate()
            draining.join()


def post(address, path, body):
    with urllib.request.urlopen(f"http://{address}/v1/{path}", json.dumps(body).encode(), timeout=60) as response:
        return json.load(response)


def query(system, model, value):
    """Returns what an application that asks only this model answers."""
    try:
        post(system.admin, "applications", {"name": model, "models": [{"model": model}], "latency_objective": "30s", "output": {"kind": "OUTPUT_KIND_LABEL"}, "default_output": "none"})
    except urllib.error.HTTPError as e:
        assert e.code == 409, e.read()
    answer = post(system.queries, f"applications/{model}/query", {"input": value})
    assert not answer["is_default"], answer
    return answer["output"]


def test_a_closure_answers_queries(system, tmp_path):
    weights = np.array([0.5, 0.25, 2.0])
    deployed = clipper.deploy(lambda rows: rows @ weights, name="score", version="1", client=system.client, directory=tmp_path)
    assert (deployed.state, deployed.current) == (model_pb2.MODEL_STATE_READY, True)
    assert query(system, "score", [1, 2, 3]) == 7.0

    (file,) = tmp_path.iterdir()
    with pytest.raises(clipper.ClipperError, match="score"):
        clipper.deploy(lambda rows: rows, name="score", version="1", client=system.client, directory=tmp_path)
    assert list(tmp_path.iterdir()) == [file], "a version that was refused leaves no file, and the other's stays"

    clipper.deploy(lambda rows: [str(len(row)) for row in rows], name="score", version="2", client=system.client, directory=tmp_path)
    assert query(system, "score", [1, 2, 3, 4]) == "4"


def test_a_closure_from_asyncio(system, tmp_path):
    async def deploy():
        async with clipper.AsyncClient(system.addresses["queries"], system.addresses["administration"]) as client:
            return await client.deploy(lambda rows: rows * 2, name="twice", version="1", directory=tmp_path)

    assert asyncio.run(deploy()).state == model_pb2.MODEL_STATE_READY
    assert query(system, "twice", 4) == 8


def test_the_default_directory_and_the_environment(system, tmp_path, monkeypatch):
    monkeypatch.delenv("CLIPPER_CLOSURE_DIR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    def greet(rows):
        import os

        return [f"{os.environ['GREETING']} {row}" for row in rows]

    clipper.deploy(greet, name="greet", version="1", client=system.client, environment={"GREETING": "hello"})
    assert query(system, "greet", "world") == "hello world"
    (file,) = (tmp_path / "clipper" / "closures").iterdir()
    assert file.name.startswith("greet-1-")


def test_a_function_that_cannot_be_loaded_there(system, tmp_path, monkeypatch):
    """Its module is here, and not where the function runs."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "only_here.py").write_text("def double(rows):\n    return rows * 2\n")
    import only_here

    with pytest.raises(clipper.ClipperError, match="(?s)lonely 1 cannot serve: .*No module named 'only_here'"):
        clipper.deploy(lambda rows: only_here.double(rows), name="lonely", version="1", client=system.client, directory=tmp_path)
    clipper.deploy(lambda rows: only_here.double(rows), name="lonely", version="2", client=system.client, directory=tmp_path, modules=[only_here])
    assert query(system, "lonely", 4) == 8


def test_one_that_is_not_ready_in_time(system, tmp_path):
    with pytest.raises(clipper.ClipperError, match="late 1 is not ready after 0 s: ."):
        clipper.deploy(lambda rows: rows, name="late", version="1", client=system.client, directory=tmp_path, ready_seconds=0)


def test_what_is_wrong_before_anything_is_done(tmp_path):
    with pytest.raises(ValueError, match="the name 'a/b' is not 1 to 63 letters"):
        clipper.deploy(len, name="a/b", version="1", directory=tmp_path)
    with pytest.raises(ValueError, match="the version ''"):
        clipper.deploy(len, name="a", version="", directory=tmp_path)
    with pytest.raises(TypeError, match="a function is needed"):
        clipper.deploy(7, name="a", version="1", directory=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_clipper_there(tmp_path):
    with clipper.Client(admin_address=f"unix:{tmp_path / 'nothing'}", attempts=2) as client:
        with pytest.raises(clipper.ClipperError, match="does `clipper up` run there"):
            clipper.deploy(len, name="a", version="1", client=client, directory=tmp_path)
