# SPDX-License-Identifier: Apache-2.0
"""Containers as processes, over gRPC."""

from __future__ import annotations

import os
import platform
import re
import select
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
from clipper_proto.v1 import error_pb2
from clipper_proto.v1.model_container_service_pb2 import BatchTensor, DescribeRequest, PredictRequest, PredictResponse
from grpc_health.v1 import health_pb2

from clipper_container import tensors
from clipper_container.testing import ContainerProcess, Stream

PROGRAM = Path(__file__).parent / "containers.py"
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for the other process in /proc")
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def start(tmp_path):
    """Starts containers, which end with the test."""
    started = []

    def start(name, *arguments, environment=None, **more):
        environment = {"TEST_FOLDER": str(tmp_path), **(environment or {})}
        started.append(ContainerProcess(PROGRAM, tmp_path, name, *arguments, environment=environment, **more))
        return started[-1]

    yield start
    for container in started:
        container.__exit__(None, None, None)


def column(values):
    ((tensor,), _) = tensors.encode(values, len(values))
    return tensor


def wait_for(path):
    # What the container says through a file has no other way to be waited for.
    deadline = 60
    with subprocess.Popen(["sh", "-c", f"while [ ! -e '{path}' ]; do sleep 0.01; done"]) as waiting:
        assert waiting.wait(deadline) == 0


def test_a_function_is_a_container(start):
    container = start("first", environment={"CLIPPER_MODEL_NAME": "m", "CLIPPER_MODEL_VERSION": "3"}).wait_until_serving()
    got = container.outputs(np.arange(6.0).reshape(2, 3))
    assert got.tolist() == [0.0, 3.0]
    described = container.stub.Describe(DescribeRequest())
    assert (described.model, described.version) == ("m", "3")
    assert (described.max_batch_rows, described.max_in_flight, described.max_message_bytes) == (0, 2, 64 << 20)
    assert not described.signature.inputs
    assert described.properties["language"] == f"Python {platform.python_version()}"


def test_flags_come_before_the_environment(start):
    container = start("first", "--model-name", "flag", environment={"CLIPPER_MODEL_NAME": "m"}).wait_until_serving()
    assert container.stub.Describe(DescribeRequest()).model == "flag"


def test_several_inputs_and_outputs(start):
    container = start("both").wait_until_serving()
    a = BatchTensor(name="a", data_type=13, shape=[2], data=np.arange(4.0).tobytes())
    b = BatchTensor(name="b", data_type=13, data=np.array([10.0, 20.0]).tobytes())
    response = container.predict(a, b, rows=2)
    assert [t.name for t in response.outputs] == ["sum", "text"]
    assert np.frombuffer(response.outputs[0].data).tolist() == [11.0, 25.0]
    assert list(response.outputs[1].strings) == ["t", "t"]


def test_not_ready_while_the_model_is_loaded(start, tmp_path):
    (tmp_path / "model").write_text("2")
    container = start("slow", "--model-path", str(tmp_path / "model"))
    statuses = container.statuses()
    assert next(statuses) == NOT_SERVING
    for call in (lambda: container.stub.Describe(DescribeRequest()), lambda: next(container.stub.Predict(iter([])))):
        with pytest.raises(grpc.RpcError) as e:
            call()
        assert e.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "being loaded" in e.value.details()
    (tmp_path / "load").touch()
    assert next(statuses) == SERVING
    assert container.health.Check(health_pb2.HealthCheckRequest(service="clipper.v1.ModelContainerService")).status == SERVING
    assert container.outputs(np.array([[1.0], [2.0]])).tolist() == [[2.0], [4.0]]
    described = container.stub.Describe(DescribeRequest())
    assert described.signature.inputs[0].shape == [-1]
    assert described.properties["framework"] == "multiplication"
    assert described.max_batch_rows == 3
    assert container.process.send_signal(signal.SIGTERM) is None
    assert next(statuses) == NOT_SERVING
    assert container.process.wait(60) == 0


def test_an_exception_fails_the_batch_and_not_the_container(start):
    container = start("scripted").wait_until_serving()
    response = container.predict(column(["raise", "b"]), rows=2)
    assert (response.error.code, response.error.reason) == (2, error_pb2.ERROR_REASON_MODEL_FAILED)
    assert response.error.message == "ValueError: this batch is\nnot good"
    assert not response.outputs
    (line,) = [line for line in container.log().splitlines() if "model failed" in line]
    assert "Traceback" in line
    assert "in scripted" in line
    assert container.outputs(["fine"]) == ["fine"]


def test_a_wrong_number_of_rows_fails_the_batch(start):
    container = start("scripted").wait_until_serving()
    response = container.predict(column(["short", "b"]), rows=2)
    assert (response.error.code, response.error.reason) == (13, error_pb2.ERROR_REASON_MODEL_PROTOCOL)
    assert "has 1 rows for a batch of 2" in response.error.message


def test_rows_fail_one_by_one(start):
    container = start("scripted").wait_until_serving()
    response = container.predict(column(["rows", "fail", "c"]), rows=3)
    assert not response.HasField("error")
    assert list(response.outputs[0].strings) == ["rows", "", "c"]
    assert [(e.row, e.error.message, e.error.code) for e in response.row_errors] == [(1, "row 1", 2)]


def test_a_malformed_batch_is_refused_and_the_stream_goes_on(start):
    container = start("scripted").wait_until_serving()
    stream = Stream(container)
    stream.send(PredictRequest(id=1, rows=2, inputs=[BatchTensor(data_type=13, data=b"123")]))
    response = stream.receive()
    assert (response.id, response.error.code, response.error.field) == (1, 3, "inputs[0].data")
    stream.send(PredictRequest(id=2, rows=1, inputs=[column(["fine"])]))
    assert stream.receive().outputs[0].strings == ["fine"]
    stream.end()
    assert list(stream.call) == []


@pytest.mark.parametrize(("name", "limit"), [("numbers", 3), ("limited", 2)])
def test_batches_are_limited(start, tmp_path, name, limit):
    (tmp_path / "model").write_text("1")
    container = start(name, "--model-path", str(tmp_path / "model")).wait_until_serving()
    assert container.stub.Describe(DescribeRequest()).max_batch_rows == limit
    assert len(container.outputs(np.ones((limit, 1)))) == limit
    response = container.predict(column(np.ones((limit + 1, 1))), rows=limit + 1)
    assert (response.error.code, response.error.reason) == (8, error_pb2.ERROR_REASON_TOO_LARGE)


def test_messages_are_limited(start):
    container = start("first", "--max-message-bytes", "10000").wait_until_serving()
    with pytest.raises(grpc.RpcError) as e:
        container.outputs(np.zeros((1, 2000)))
    assert e.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert container.outputs(np.zeros((1, 1000))).tolist() == [0]


def test_a_batch_whose_time_is_over_is_dropped(start, tmp_path):
    container = start("scripted").wait_until_serving()
    stream = Stream(container)
    stream.send(PredictRequest(id=1, rows=1, inputs=[column(["wait"])]))
    wait_for(tmp_path / "waiting")
    stream.send(PredictRequest(id=2, rows=1, inputs=[column(["late"])], timeout_micros=1))
    stream.send(PredictRequest(id=3, rows=1, inputs=[column(["in time"])], timeout_micros=600_000_000))
    (tmp_path / "go").touch()
    responses = {r.id: r for r in (stream.receive() for _ in range(3))}
    assert list(responses[1].outputs[0].strings) == ["wait"]
    assert (responses[2].error.code, responses[2].error.reason) == (4, error_pb2.ERROR_REASON_DEADLINE)
    assert list(responses[3].outputs[0].strings) == ["in time"]


def test_health_is_answered_while_the_model_works(start, tmp_path):
    container = start("scripted").wait_until_serving()
    stream = Stream(container)
    stream.send(PredictRequest(id=1, rows=1, inputs=[column(["wait"])]))
    wait_for(tmp_path / "waiting")
    assert container.health.Check(health_pb2.HealthCheckRequest(), timeout=60).status == SERVING
    (tmp_path / "go").touch()
    assert stream.receive().id == 1


def test_predictions_run_in_parallel_when_the_model_allows(start):
    container = start("pair").wait_until_serving()
    assert container.stub.Describe(DescribeRequest()).max_in_flight == 3
    stream = Stream(container)
    for i in (1, 2):
        stream.send(PredictRequest(id=i, rows=1, inputs=[column([i])]))
    assert {stream.receive().id, stream.receive().id} == {1, 2}


def test_sigterm_finishes_what_was_taken(start, tmp_path):
    container = start("scripted").wait_until_serving()
    stream = Stream(container)
    idle = Stream(container)  # a stream without work must not hold up the end
    statuses = container.statuses()
    assert next(statuses) == SERVING
    stream.send(PredictRequest(id=1, rows=1, inputs=[column(["wait"])]))
    wait_for(tmp_path / "waiting")
    container.process.send_signal(signal.SIGTERM)
    assert next(statuses) == NOT_SERVING
    assert list(idle.call) == []
    (tmp_path / "go").touch()
    assert list(stream.receive().outputs[0].strings) == ["wait"]
    assert list(stream.call) == []
    assert stream.call.code() == grpc.StatusCode.OK
    assert container.process.wait(60) == 0
    assert not (tmp_path / "s").exists()


def test_a_caller_that_goes_away_leaves_the_container_working(start, tmp_path):
    container = start("scripted").wait_until_serving()
    stream = Stream(container)
    stream.send(PredictRequest(id=1, rows=1, inputs=[column(["wait"])]))
    wait_for(tmp_path / "waiting")
    stream.call.cancel()
    (tmp_path / "go").touch()
    assert container.outputs(["fine"]) == ["fine"]
    container.process.send_signal(signal.SIGTERM)
    assert container.process.wait(60) == 0
    assert "ERROR" not in container.log()


@pytest.mark.parametrize(
    ("name", "content", "code", "words"),
    [
        ("numbers", None, 78, ["cannot load the model", "model", "FileNotFoundError", "expected one number as text"]),
        ("numbers", "spoiled", 78, ["ValueError", "spoiled", "expected one number as text"]),
        ("never", "", 78, ["the licence of the model is over"]),
        ("huge", "", 1, ["not enough memory to load", "model", "Unable to allocate"]),
        ("later", "", 1, ["the feature store is away"]),
    ],
)
def test_models_that_cannot_be_loaded(start, tmp_path, name, content, code, words):
    if content is not None:
        (tmp_path / "model").write_text(content)
    container = start(name, "--model-path", str(tmp_path / "model"))
    assert container.process.wait(60) == code
    last = container.log().splitlines()[-1]
    for word in words:
        assert word in last
    assert "Traceback" not in container.log()


def test_a_model_path_that_is_needed_and_not_given(start):
    container = start("numbers")
    assert container.process.wait(60) == 78
    assert "CLIPPER_MODEL_PATH" in container.log().splitlines()[-1]


def test_a_model_that_ends_the_process(start):
    container = start("scripted").wait_until_serving()
    response = container.predict(column(["exit"]), rows=1)
    assert response.error.message == "SystemExit: 3"
    assert container.process.wait(60) == 1


def test_large_batches_and_answers(start):
    # Several at once, some larger than what the processes share memory for at first.
    container = start("scripted").wait_until_serving()
    streams = [Stream(container) for _ in range(4)]
    texts = [["x" * n, str(n)] for n in (1, 5_000, 70_000, 3_000_000)]
    for turn in range(5):
        for i, stream in enumerate(streams):
            for j in range(2):
                stream.send(PredictRequest(id=turn * 100 + 10 * i + j, rows=2, inputs=[column(texts[(i + j + turn) % 4])]))
        for i, stream in enumerate(streams):
            for j in range(2):
                answer = stream.receive()
                assert answer.id == turn * 100 + 10 * i + j
                assert list(answer.outputs[0].strings) == texts[(i + j + turn) % 4]


def test_what_is_no_request_is_refused_and_the_stream_goes_on(start):
    container = start("scripted").wait_until_serving()
    call = container.channel.stream_stream("/clipper.v1.ModelContainerService/Predict", None, PredictResponse.FromString)
    good = PredictRequest(id=2, rows=1, inputs=[column(["fine"])]).SerializeToString()
    refused, answered = call(iter([b"\xff\xff\xff", good]), timeout=60)
    assert (refused.error.code, refused.error.message) == (3, "the message is no PredictRequest")
    assert answered.outputs[0].strings == ["fine"]


def server_of(container):
    """Returns the process of the gRPC server."""
    with open(f"/proc/{container.process.pid}/task/{container.process.pid}/children") as f:
        (child,) = f.read().split()
    return int(child)


@linux
def test_a_server_that_is_killed_ends_the_container(start):
    container = start("first").wait_until_serving()
    os.kill(server_of(container), signal.SIGKILL)
    assert container.process.wait(60) == 1
    assert container.log().splitlines()[-1] == "RuntimeError: the process of the gRPC server was ended by SIGKILL"


@linux
def test_a_model_that_dies_takes_the_server_with_it(start):
    container = start("scripted").wait_until_serving()
    server = os.pidfd_open(server_of(container)) if hasattr(os, "pidfd_open") else None
    with pytest.raises(grpc.RpcError) as e:
        container.predict(column(["die"]), rows=1)
    assert e.value.code() == grpc.StatusCode.UNAVAILABLE
    assert container.process.wait(60) == 9
    if server is not None:
        assert select.select([server], [], [], 60)[0]  # readable when it has ended
        os.close(server)


@linux
def test_a_signal_to_the_whole_group_drains(start, tmp_path):
    container = start("scripted", group=True).wait_until_serving()
    stream = Stream(container)
    stream.send(PredictRequest(id=1, rows=1, inputs=[column(["wait"])]))
    wait_for(tmp_path / "waiting")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        os.killpg(container.process.pid, number)
    (tmp_path / "go").touch()
    assert stream.receive().id == 1
    assert container.process.wait(60) == 0


def test_the_processes_load_what_they_need(start):
    container = start("modules").wait_until_serving()
    assert container.outputs(["grpc", "numpy"]) == ["no", "yes"]


def test_wrong_settings(start):
    for arguments in (["--nonsense"], ["--log-level", "loud"], ["--max-message-bytes", "many"]):
        container = start("first", *arguments)
        assert container.process.wait(60) == 2
        assert arguments[0] in container.log()
    container = start("none")
    assert container.process.wait(60) != 0
    assert "parallel is 0" in container.log()


def test_ends_with_its_parent(start):
    container = start("first", environment={"CLIPPER_EXIT_WITH_PARENT": "1"}, stdin=subprocess.PIPE).wait_until_serving()
    container.process.stdin.close()
    assert container.process.wait(60) == 0
    assert "the parent process is gone" in container.log()


def test_ends_with_its_parent_even_when_the_model_hangs(start, tmp_path):
    container = start("scripted", "--exit-with-parent", stdin=subprocess.PIPE).wait_until_serving()
    stream = Stream(container)
    stream.send(PredictRequest(id=1, rows=1, inputs=[column(["wait"])]))
    wait_for(tmp_path / "waiting")
    container.process.stdin.close()
    assert container.process.wait(60) == 1


def test_a_closed_input_is_nothing_without_the_setting(start):
    container = start("first", stdin=subprocess.PIPE).wait_until_serving()
    container.process.stdin.close()
    assert container.outputs(np.ones((1, 1))).tolist() == [1]


def test_a_socket_file_that_was_left_is_replaced(start, tmp_path):
    first = start("first").wait_until_serving()
    first.process.kill()
    first.process.wait()
    assert (tmp_path / "s").exists()
    assert start("first").wait_until_serving().outputs(np.ones((1, 1))).tolist() == [1]


def test_a_socket_in_use_is_left_alone(start, tmp_path):
    first = start("first").wait_until_serving()
    second = start("first")
    assert second.process.wait(60) == 1
    assert "another process serves on it" in second.log()
    assert first.outputs(np.ones((1, 1))).tolist() == [1]


def test_a_file_that_is_no_socket_is_left_alone(start, tmp_path):
    (tmp_path / "s").write_text("precious")
    container = start("first")
    assert container.process.wait(60) == 1
    assert "not a socket" in container.log()
    assert (tmp_path / "s").read_text() == "precious"


def test_tcp(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        container = start("first", "--address", f"127.0.0.1:{taken.getsockname()[1]}")
        assert container.process.wait(60) == 1
        assert "cannot serve on 127.0.0.1:" in container.log().splitlines()[-1]
        port = taken.getsockname()[1]
    container = start("first", "--address", f"127.0.0.1:{port}")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest.SerializeToString, health_pb2.HealthCheckResponse.FromString)
        check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=60)
    assert f"address=127.0.0.1:{port}" in container.log()


def test_logs_are_one_line_each(start):
    container = start("scripted").wait_until_serving()
    container.predict(column(["raise"]), rows=1)
    container.process.send_signal(signal.SIGTERM)
    assert container.process.wait(60) == 0
    for line in container.log().splitlines():
        assert line.startswith("time=")
        assert " level=" in line
        assert " msg=" in line
    assert "msg=stopped" in container.log()


def test_metrics(start):
    container = start("scripted", environment={"CLIPPER_METRICS_ADDRESS": ":0"}).wait_until_serving()
    (address,) = re.findall(r"serving metrics.* address=(127\.0\.0\.1:\d+)", container.log())
    container.predict(column(["rows", "fail", "b"]), rows=3)
    container.predict(column(["raise", "b"]), rows=2)
    container.predict(column(["short", "b"]), rows=2)
    container.predict(column(["b"]), rows=2)
    container.predict(column(["b"]), rows=1)
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as page:
        text = page.read().decode()
    got = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert {name: float(got["clipper_container_" + name]) for name in EXPECTED_METRICS} == EXPECTED_METRICS


EXPECTED_METRICS = {
    'batches_total{result="ok"}': 2,
    'batches_total{result="error"}': 2,
    'batches_total{result="refused"}': 1,
    "rows_total": 3,
    "row_errors_total": 1,
    "predict_seconds_count": 4,
    "batch_rows_count": 4,
    "batch_rows_sum": 8,
    "in_flight": 0,
    "ready": 1,
}


def test_metrics_that_cannot_be_served(start):
    for address in ("127.0.0.1:many", "127.0.0.1:70000", "no-port"):
        container = start("first", "--metrics-address", address)
        assert container.process.wait(60) == 1
        assert f"cannot serve metrics on {address}" in container.log().splitlines()[-1]
