# SPDX-License-Identifier: Apache-2.0
"""Predictions through an HTTP endpoint are the endpoint's own, value for value."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from clipper_proto.v1 import model_container_service_pb2 as container_pb2

from clipper_container import tensors
from clipper_container.testing import ContainerProcess, deployed

ADAPTER = Path(__file__).with_name("adapter.py")
ROWS = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)


def model(rows):
    return np.asarray(rows, np.float64) @ [0.1, 0.2, 0.3]


class Endpoint(BaseHTTPRequestHandler):
    """Answers each path in another shape, and remembers who is connected."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    peers: set = set()
    connections: set = set()
    release = threading.Event()

    def setup(self):
        super().setup()
        self.connections.add(self.connection)

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self):
        self.send_response(405)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self):
        self.peers.add(self.client_address)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/instances":
            self.reply({"predictions": model(body["instances"]).tolist()})
        elif self.path == "/list":
            self.reply([text.upper() for text in body])
        elif self.path == "/named":
            assert body["parameters"] == {"scale": 2}
            self.reply({"outputs": [{"error": "b is negative"} if row["b"] < 0 else sum(row["a"]) * 2 + row["b"] for row in body["inputs"]]})
        elif self.path == "/slow":
            self.release.wait(30)
            self.reply({"predictions": []})
        elif self.path == "/short":
            self.reply({"predictions": [1]})
        elif self.path == "/scores":
            self.reply({"scores": [1, 2]})
        elif self.path == "/html":
            self.answer(200, b"<html>hello</html>")
        else:
            self.answer(503, b"the model is on holiday" + b"." * 5000)

    def reply(self, value):
        self.answer(200, json.dumps(value).encode())

    def log_message(self, *args):
        pass


@contextmanager
def running(port=0):
    Endpoint.release.clear()
    server = ThreadingHTTPServer(("127.0.0.1", port), Endpoint)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        Endpoint.release.set()
        server.shutdown()
        server.server_close()
        for connection in Endpoint.connections:  # as the end of a process would
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        Endpoint.connections.clear()
        thread.join()


def adapter(folder, url, **more):
    return ContainerProcess(ADAPTER, folder, environment={"HTTP_URL": url, **more})


def batch(rows):
    (tensor,), _ = tensors.encode(rows, len(rows))
    return tensor


def test_instances_over_one_connection(tmp_path):
    with running() as port, adapter(tmp_path, f"http://127.0.0.1:{port}/instances").wait_until_serving() as container:
        Endpoint.peers.clear()
        np.testing.assert_array_equal(container.outputs(ROWS), model(ROWS))
        np.testing.assert_array_equal(container.outputs(ROWS[:1]), model(ROWS[:1]))
        assert len(Endpoint.peers) == 1
        assert "JSON compliant" in container.predict(batch(np.full((1, 3), np.nan)), rows=1).error.message
        assert len(container.outputs(ROWS[:2])) == 2


def test_conformance(tmp_path):
    with running() as port, adapter(tmp_path, f"http://127.0.0.1:{port}/instances").wait_until_serving() as container:
        container.conforms(ROWS[0].tolist())


def test_a_plain_list_of_text(tmp_path):
    settings = {"HTTP_REQUEST": "$rows", "HTTP_RESPONSE": ""}
    with running() as port, adapter(tmp_path, f"http://127.0.0.1:{port}/list", **settings).wait_until_serving() as container:
        assert container.outputs(["a", "ß", 'quote "']) == ["A", "SS", 'QUOTE "']


def test_a_template_with_several_inputs_and_a_row_that_fails(tmp_path):
    settings = {"HTTP_REQUEST": '{"inputs": $rows, "parameters": {"scale": 2}}', "HTTP_RESPONSE": "outputs"}
    with running() as port, adapter(tmp_path, f"http://127.0.0.1:{port}/named", **settings).wait_until_serving() as container:
        inputs, _ = tensors.encode({"a": np.ones((3, 2)), "b": np.array([1.0, -1.0, 3.0])}, 3)
        response = container.predict(*inputs, rows=3)
        assert [(e.row, e.error.message) for e in response.row_errors] == [(1, "b is negative")]
        values = tensors.decode(container_pb2.PredictRequest(rows=3, inputs=response.outputs))
        assert (values[0], values[2]) == (5, 7)


@pytest.mark.parametrize(
    ("path", "want"),
    [("/broken", "answered 503: the model is on holiday"), ("/scores", "expected 200 with 'predictions'"), ("/short", "1 rows for a batch of 2"), ("/html", "JSONDecodeError"), ("/slow", "timed out")],
)
def test_answers_that_are_no_predictions(tmp_path, path, want):
    with running() as port, adapter(tmp_path, f"http://127.0.0.1:{port}{path}", HTTP_TIMEOUT="0.5").wait_until_serving() as container:
        for _ in range(2):
            message = container.predict(batch(ROWS[:2]), rows=2).error.message
            assert want in message
            assert len(message) < 400


def test_a_server_that_was_away(tmp_path):
    with running() as port:
        container = adapter(tmp_path, f"http://127.0.0.1:{port}/instances").wait_until_serving()
    with container:
        assert container.predict(batch(ROWS), rows=len(ROWS)).HasField("error")
        with running(port):
            np.testing.assert_array_equal(container.outputs(ROWS), model(ROWS))


def test_no_server(tmp_path):
    with running() as port:
        pass
    with adapter(tmp_path, f"http://127.0.0.1:{port}/instances") as container:
        assert container.process.wait(60) == 1
        assert f"no server at http://127.0.0.1:{port}" in container.log().splitlines()[-1]


@pytest.mark.parametrize(
    "settings",
    [{}, {"HTTP_URL": "ftp://127.0.0.1:1/x"}, {"HTTP_URL": "http://127.0.0.1:1", "HTTP_REQUEST": "{}"}, {"HTTP_URL": "http://127.0.0.1:1", "HTTP_REQUEST": "{$rows"}],
)
def test_settings_that_are_missing_or_wrong(tmp_path, settings):
    with ContainerProcess(ADAPTER, tmp_path, environment=settings) as container:
        assert container.process.wait(60) == 78
        assert "expected HTTP_URL" in container.log().splitlines()[-1]


def test_deployed(tmp_path):
    with running() as port, deployed(ADAPTER, tmp_path, default=0, HTTP_URL=f"http://127.0.0.1:{port}/instances") as ask:
        assert ask(ROWS[0].tolist()) == pytest.approx(model(ROWS)[0])
