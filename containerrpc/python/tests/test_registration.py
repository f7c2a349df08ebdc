# SPDX-License-Identifier: Apache-2.0
"""Containers that register, at a server that plays Clipper's administration."""

from __future__ import annotations

import queue
import re
import signal
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from clipper_proto.v1 import model_service_pb2, model_service_pb2_grpc

from clipper_container.registration import RegistrationError, reached_at, replica_id
from clipper_container.testing import ContainerProcess

PROGRAM = Path(__file__).parent / "containers.py"


class Admin(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self):
        self.came = queue.Queue()
        self.refuse = []

    def RegisterReplica(self, request, context):
        self.came.put(request)
        if self.refuse:
            context.abort(*self.refuse.pop(0))
        return model_service_pb2.RegisterReplicaResponse(lease=request.lease)


@pytest.fixture
def admin():
    server = grpc.server(futures.ThreadPoolExecutor(2))
    admin = Admin()
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(admin, server)
    admin.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield admin
    server.stop(None).wait()


def start(admin, folder, **more):
    environment = {"CLIPPER_MODEL_NAME": "m", "CLIPPER_MODEL_VERSION": "3", "CLIPPER_REGISTER_ADDRESS": admin.address, "TEST_FOLDER": str(folder), **more}
    return ContainerProcess(PROGRAM, folder, "first", environment=environment)


def test_it_registers_and_leaves(admin, tmp_path):
    with start(admin, tmp_path) as container:
        request = admin.came.get(timeout=60)
        assert (request.model, request.version, request.address) == ("m", "3", container.address)
        assert request.replica == replica_id(container.address)
        assert request.lease.seconds == 15
        container.process.send_signal(signal.SIGTERM)
        assert container.process.wait(60) == 0, container.log()
        left = admin.came.get(timeout=60)
        assert (left.replica, left.HasField("lease"), left.lease.seconds) == (request.replica, True, 0)


def test_it_advertises_what_it_is_told_and_tries_again(admin, tmp_path):
    admin.refuse = [(grpc.StatusCode.UNAVAILABLE, "the store is away")]
    with start(admin, tmp_path, CLIPPER_ADVERTISE_ADDRESS="10.0.0.7:9000") as container:
        for _ in range(2):
            assert admin.came.get(timeout=60).address == "10.0.0.7:9000"
        assert "the store is away" in container.log()


def test_a_replica_that_is_refused_ends(admin, tmp_path):
    admin.refuse = [(grpc.StatusCode.INVALID_ARGUMENT, "address: not that one")]
    with start(admin, tmp_path) as container:
        assert container.process.wait(60) == 1
        assert "address: not that one" in container.log()


def test_a_container_without_a_name_does_not_register(admin, tmp_path):
    with start(admin, tmp_path, CLIPPER_MODEL_VERSION="") as container:
        assert container.process.wait(60) == 1
        assert "CLIPPER_MODEL_VERSION" in container.log()


def test_addresses():
    assert reached_at("unix:/run/m.sock") == "unix:/run/m.sock"
    assert reached_at("10.0.0.7:9000") == "10.0.0.7:9000"
    for everywhere in ("0.0.0.0:9000", "[::]:9000"):
        assert reached_at(everywhere).endswith(":9000")
        assert reached_at(everywhere) != everywhere
    for address in ("10.0.0.7:9000", "[::1]:9000", "unix:/run/m/a.sock", "a" * 80 + ":9000"):
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", replica_id(address))
    assert issubclass(RegistrationError, Exception)
