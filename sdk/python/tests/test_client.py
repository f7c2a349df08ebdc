# SPDX-License-Identifier: Apache-2.0
"""The clients, without a server that answers."""

from __future__ import annotations

import logging
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest

import clipper
from clipper.errors import from_rpc

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "sdk" / "python" / "src" / "clipper"


def test_both_clients_are_of_one_shape():
    synchronous = runpy.run_path(str(ROOT / "tools" / "unasync.py"))["synchronous"]
    written = synchronous((SOURCE / "async_client.py").read_text())
    assert written == (SOURCE / "client.py").read_text(), "run tools/unasync.py"


def test_the_version_is_that_of_the_package():
    assert f'\nversion = "{clipper.__version__}"\n' in (ROOT / "sdk" / "python" / "pyproject.toml").read_text()


@pytest.mark.parametrize("address", ["10.0.0.1:1347", "clipper:1347", "[2001:db8::1]:1347", "localhost.example:1347"])
def test_a_key_is_not_sent_for_all_to_read(address):
    with pytest.raises(ValueError, match="without TLS"):
        clipper.Client(address, api_key="secret")


@pytest.mark.parametrize("address", ["127.0.0.1:1347", "[::1]:1347", "localhost:1347", "unix:/run/clipper.sock"])
def test_a_key_may_be_sent_on_this_machine(address):
    clipper.Client(address, api_key="secret").close()


@pytest.mark.parametrize("options", [{"timeout": 0}, {"attempts": 0}, {"cert_file": "client.pem"}])
def test_what_cannot_be_used(options):
    with pytest.raises(ValueError):
        clipper.Client(**options)


def test_nobody_there(tmp_path, caplog):
    """What is safe to repeat is repeated, and logged; then the error says what to look at."""
    with clipper.Client(f"unix:{tmp_path / 'nothing'}", attempts=3) as client, caplog.at_level(logging.DEBUG, "clipper"):
        with pytest.raises(clipper.ClipperError, match="does `clipper up` run there") as raised:
            client.query("a", 1)
        assert (raised.value.code, raised.value.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
        assert [r.levelname for r in caplog.records if r.name == "clipper"] == ["WARNING", "WARNING", "DEBUG"]
        caplog.clear()
        with pytest.raises(clipper.ClipperError):
            client.feedback("a", input=1, truth=1)
        assert [r.levelname for r in caplog.records if r.name == "clipper"] == ["DEBUG"], "it might count twice"


def test_interceptors_see_each_attempt(tmp_path):
    seen = []

    class Counter(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation, details, request):
            seen.append(details.method)
            return continuation(details, request)

    with clipper.Client(f"unix:{tmp_path / 'nothing'}", attempts=2, interceptors=[Counter()]) as client:
        with pytest.raises(clipper.ClipperError):
            client.query("a", 1)
    assert seen == ["/clipper.v1.QueryService/Query"] * 2


@pytest.mark.parametrize("truth", [object(), {1, 2}, [object()], b"bytes"])
def test_what_is_no_truth(truth):
    with clipper.Client() as client, pytest.raises(TypeError, match="is no value of JSON"):
        client.feedback("a", feedback_id="x", truth=truth)


def test_truth_and_reward_exclude_each_other():
    with clipper.Client() as client, pytest.raises(ValueError, match="exclude each other"):
        client.feedback("a", feedback_id="x", truth=1, reward=1)


def test_a_field_that_no_application_has():
    with clipper.Client() as client, pytest.raises(ValueError, match="Application cannot be read.*nonsense"):
        client.create_application({"name": "a", "nonsense": 1})


@pytest.mark.parametrize("left, code", [(-0.1, "DEADLINE_EXCEEDED"), (0.01, "DEADLINE_EXCEEDED"), (1.0, "CANCELLED")])
def test_a_server_that_cancels_at_the_deadline(left, code):
    error = from_rpc(SimpleNamespace(code=lambda: grpc.StatusCode.CANCELLED, details=lambda: "stream removed", trailing_metadata=lambda: None), left)
    assert (error.code.name, error.reason) == (code, "DEADLINE" if left < 1 else "")


def test_who_only_saves_functions_needs_no_more_than_a_container_has():
    subprocess.run([sys.executable, "-c", "import sys; sys.modules['google.rpc'] = None; import clipper"], check=True)
