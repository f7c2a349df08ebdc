# SPDX-License-Identifier: Apache-2.0
"""Containers that speak TLS, and register by token at a server that asks for both."""

from __future__ import annotations

import os
import queue
import secrets
import socket
import ssl
import subprocess
import time
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from clipper_proto.v1 import model_service_pb2, model_service_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from clipper_container.testing import ContainerProcess

# A runtime in another language must do the same: tools/test-cpp.sh names its container.
PROGRAM = Path(os.environ.get("CLIPPER_SECURE_CONTAINER", Path(__file__).parent / "containers.py"))
TOKEN = secrets.token_hex()


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Certificates:
    """A CA in a folder."""

    def __init__(self, folder):
        folder.mkdir()
        self.folder, self.ca = folder, folder / "ca.crt"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 2, "-subj", "/CN=ca", "-addext", "keyUsage=critical,keyCertSign", "-keyout", folder / "ca.key", "-out", self.ca)

    def issue(self, name):
        """Makes, or replaces, the certificate and key of a name, for 127.0.0.1."""
        key, cert, extensions = (self.folder / f"{name}.{kind}" for kind in ("key", "crt", "ext"))
        extensions.write_text("subjectAltName=IP:127.0.0.1\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{key}.new", "-out", self.folder / "csr")
        openssl("x509", "-req", "-in", self.folder / "csr", "-CA", self.ca, "-CAkey", self.folder / "ca.key", "-CAcreateserial", "-days", 2, "-extfile", extensions, "-out", f"{cert}.new")
        Path(f"{cert}.new").replace(cert)
        Path(f"{key}.new").replace(key)
        return cert, key


@pytest.fixture
def certificates(tmp_path):
    return Certificates(tmp_path / "certificates")


class Admin(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self):
        self.came = queue.Queue()

    def RegisterReplica(self, request, context):
        self.came.put(request)
        if request.token != TOKEN:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "token: this is not a token of registration")
        return model_service_pb2.RegisterReplicaResponse(lease=request.lease)


@pytest.fixture
def admin(certificates):
    cert, key = certificates.issue("clipper")
    server = grpc.server(futures.ThreadPoolExecutor(2))
    admin = Admin()
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(admin, server)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())], certificates.ca.read_bytes(), require_client_auth=True)
    admin.address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    yield admin
    server.stop(None).wait()


def start(admin, certificates, folder, **more):
    cert, key = certificates.issue("container")
    environment = {
        "CLIPPER_CONTAINER_ADDRESS": "127.0.0.1:0",
        "CLIPPER_MODEL_NAME": "m",
        "CLIPPER_MODEL_VERSION": "3",
        "CLIPPER_CONTAINER_TLS_CERT": str(cert),
        "CLIPPER_CONTAINER_TLS_KEY": str(key),
        "CLIPPER_CONTAINER_TLS_CLIENT_CA": str(certificates.ca),
        "CLIPPER_REGISTER_ADDRESS": admin.address,
        "CLIPPER_REGISTER_TLS_CA": str(certificates.ca),
        "CLIPPER_REGISTER_TLS_CERT": str(cert),
        "CLIPPER_REGISTER_TLS_KEY": str(key),
        "TEST_FOLDER": str(folder),
        **more,
    }
    return ContainerProcess(PROGRAM, folder, *(["first"] if PROGRAM.suffix == ".py" else []), environment=environment)


def healthy(address, credentials):
    with grpc.secure_channel(address, credentials) as channel:
        return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60).status


def test_it_serves_and_registers_over_mutual_tls(admin, certificates, tmp_path):
    with start(admin, certificates, tmp_path, CLIPPER_REGISTER_TOKEN=TOKEN) as container:
        request = admin.came.get(timeout=60)
        assert request.token == TOKEN
        assert request.address.startswith("tls://127.0.0.1:")
        address = request.address[len("tls://") :]
        ca = certificates.ca.read_bytes()
        cert, key = certificates.issue("client")
        assert healthy(address, grpc.ssl_channel_credentials(ca, key.read_bytes(), cert.read_bytes())) == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as refused:
            healthy(address, grpc.ssl_channel_credentials(ca))
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE

        # A new certificate is presented without a restart.
        def presented():
            context = ssl.create_default_context(cafile=str(certificates.ca))
            context.load_cert_chain(cert, key)
            host, _, port = address.rpartition(":")
            with socket.create_connection((host, int(port))) as raw, context.wrap_socket(raw, server_hostname=host) as secure:
                return secure.getpeercert()["serialNumber"]

        before = presented()
        certificates.issue("container")
        end = time.monotonic() + 60
        while presented() == before:
            assert time.monotonic() < end, container.log()
        assert TOKEN not in container.log()
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                assert TOKEN.encode() not in process.read_bytes(), process
            except OSError:
                continue


def test_the_token_file_is_read_again(admin, certificates, tmp_path):
    token = tmp_path / "token"
    token.write_text("an-old-one\n")
    with start(admin, certificates, tmp_path, CLIPPER_REGISTER_TOKEN_FILE=str(token)) as container:
        assert admin.came.get(timeout=60).token == "an-old-one"
        token.write_text(f"{TOKEN}\n")
        while admin.came.get(timeout=60).token != TOKEN:
            pass
        assert "not a token of registration" in container.log()


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("CLIPPER_CONTAINER_TLS_KEY", "", "belong together"),
        ("CLIPPER_CONTAINER_TLS_CERT", "/none.crt", "/none.crt"),
        ("CLIPPER_REGISTER_TOKEN_FILE", "/none", "cannot read /none"),
        ("CLIPPER_REGISTER_TLS_KEY", "", "belong together"),
    ],
)
def test_what_cannot_be_used_ends_it(admin, certificates, tmp_path, setting, value, said):
    with start(admin, certificates, tmp_path, **{setting: value}) as container:
        assert container.process.wait(60) == 1
        assert said in container.log()
