# SPDX-License-Identifier: Apache-2.0
"""The policy under a real Clipper, with two models, of which one is right."""

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from clipper_proto.v1 import application_service_pb2 as apps
from clipper_proto.v1 import application_service_pb2_grpc as apps_rpc
from clipper_proto.v1 import feedback_service_pb2 as feedback
from clipper_proto.v1 import feedback_service_pb2_grpc as feedback_rpc
from clipper_proto.v1 import model_service_pb2 as models
from clipper_proto.v1 import model_service_pb2_grpc as models_rpc
from clipper_proto.v1 import query_service_pb2 as queries
from clipper_proto.v1 import query_service_pb2_grpc as queries_rpc
from google.protobuf.struct_pb2 import Value

ROOT = Path(__file__).parents[2]
PATIENCE = 60  # Seconds; only a test that fails uses them up.
MODEL = """
import os
import numpy
from clipper_container import serve, spec

LABEL = int(os.environ["LABEL"])
serve(lambda rows: numpy.full(len(rows), LABEL), inputs=[spec("float64", [2])], outputs=[spec("int64")])
"""


def free_address():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{s.getsockname()[1]}"


def until(true):
    end = time.monotonic() + PATIENCE
    while not (result := true()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return result


class Policy:
    """The policy's process."""

    def __init__(self):
        self.address = free_address()
        self.start()

    def start(self):
        self.process = subprocess.Popen([sys.executable, Path(__file__).with_name("epsilon_greedy.py"), self.address])
        with grpc.insecure_channel(self.address) as channel:
            grpc.channel_ready_future(channel).result(PATIENCE)

    def kill(self):
        self.process.kill()
        self.process.wait()


class Clipper:
    """Clipper in one process, with the models "wrong" and "right", which answer 0 and 1."""

    def __init__(self, folder):
        assert shutil.which("go"), "the test builds Clipper and needs Go"
        program = folder / "clipper"
        subprocess.run(["go", "build", "-o", program, "./cmd/clipper"], cwd=ROOT, check=True)
        query, admin = free_address(), free_address()
        self.process = subprocess.Popen([
            program, "up", f"--data-dir={folder}/data", f"--abstraction-run-dir={folder}/run", "--log-level=warn",
            f"--frontend-http-listen={free_address()}", f"--frontend-grpc-listen={query}",
            f"--frontend-admin-http-listen={free_address()}", f"--frontend-admin-grpc-listen={admin}",
        ])
        self.channels = [grpc.insecure_channel(query), grpc.insecure_channel(admin)]
        self.queries = queries_rpc.QueryServiceStub(self.channels[0])
        self.feedback = feedback_rpc.FeedbackServiceStub(self.channels[0])
        self.apps = apps_rpc.ApplicationServiceStub(self.channels[1])
        self.models = models_rpc.ModelServiceStub(self.channels[1])

    def deploy(self, folder):
        (folder / "model.py").write_text(MODEL)
        for label, name in enumerate(["wrong", "right"]):
            command = models.Command(arguments=[sys.executable, str(folder / "model.py")])
            container = models.Container(command=command, environment={"LABEL": str(label)})
            version = models.ModelVersion(model=name, version="1", container=container)
            self.models.DeployModel(models.DeployModelRequest(version=version), timeout=PATIENCE, wait_for_ready=True)
            wanted = models.GetModelVersionRequest(model=name, version="1")
            until(lambda wanted=wanted: self.models.GetModelVersion(wanted).version.state == models.MODEL_STATE_READY)

    def stop(self):
        for channel in self.channels:
            channel.close()
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0

    def create(self, name, address, **parameters):
        app = apps.Application(name=name, default_output=Value(number_value=-1), policy=apps.Policy(name="custom", address=address, parameters=parameters))
        app.latency_objective.FromSeconds(10)
        for model in ["wrong", "right"]:
            app.models.add(model=model)
        return self.apps.CreateApplication(apps.CreateApplicationRequest(application=app)).application

    def ask(self, name):
        return self.queries.Query(queries.QueryRequest(application=name, input_json=b"[1, 2]"))

    def learn(self, name, answer):
        truth = Value(number_value=1)
        return self.feedback.Feedback(feedback.FeedbackRequest(application=name, feedback_id=answer.feedback_id, truth=truth))

    def state(self, name):
        return self.apps.GetSelectionState(apps.GetSelectionStateRequest(application=name))


@pytest.fixture(scope="module")
def clipper(tmp_path_factory):
    folder = tmp_path_factory.mktemp("c")
    clipper = Clipper(folder)
    try:
        clipper.deploy(folder)
        yield clipper
    finally:
        clipper.stop()


@pytest.fixture
def policy():
    policy = Policy()
    yield policy
    policy.kill()


def label(answer):
    return int.from_bytes(answer.outputs[0].data, "little", signed=True)


def test_learns(clipper, policy):
    created = clipper.create("learns", policy.address, epsilon=0.2)
    assert list(created.policy.statistics) == ["tries", "losses"]
    answers = []
    for _ in range(100):
        answer = clipper.ask("learns")
        assert [p.propensity for p in answer.predictions] in ([0.1], [0.9])
        clipper.learn("learns", answer)
        answers.append(label(answer))
    assert sum(answers[50:]) > 35, "nine in ten"
    state = clipper.state("learns")
    assert state.observations == 100
    wrong, right = (m.statistics for m in state.models)
    assert wrong["tries"] + right["tries"] == 100
    assert (wrong["losses"], right["losses"]) == (wrong["tries"], 0)


def test_refuses_a_parameter(clipper, policy):
    with pytest.raises(grpc.RpcError) as refused:
        clipper.create("refused", policy.address, epsilon=3)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "epsilon is 3, want 0 to 1" in refused.value.details()


def test_dies_and_comes_back(clipper, policy):
    clipper.create("dies", policy.address, epsilon=0)
    clipper.learn("dies", clipper.ask("dies"))
    policy.kill()
    answer = clipper.ask("dies")
    assert not answer.is_default, "the models' weights decide"
    assert len(answer.predictions) == 2, "all are asked"
    with pytest.raises(grpc.RpcError) as failed:
        clipper.learn("dies", answer)
    assert failed.value.code() == grpc.StatusCode.UNAVAILABLE
    policy.start()
    until(lambda: len(clipper.ask("dies").predictions) == 1)
    clipper.learn("dies", answer)
    assert clipper.state("dies").observations == 2, "what was learned before is not lost"
