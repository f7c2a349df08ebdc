# SPDX-License-Identifier: Apache-2.0
"""For the tests of adapters: starts a container as a process and talks to it."""

from __future__ import annotations

import http.client
import json
import os
import queue
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Optional, Union

# Chosen when gRPC is imported: its handlers for forks can crash a process that only starts programs, as tests do.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc  # noqa: E402
import numpy as np  # noqa: E402
from clipper_proto.v1 import model_container_service_pb2 as container_pb2  # noqa: E402
from clipper_proto.v1 import model_container_service_pb2_grpc as container_grpc  # noqa: E402
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402

from clipper_container import tensors  # noqa: E402

# Seconds after which what has not happened is taken to hang. A JVM or a large framework takes tens of seconds to start
# on a machine that is busy.
PATIENCE = 180


class ContainerProcess:
    """A running container, on a unix socket in ``folder``. Use it as a context manager.

    program is a Python file, or an executable in any language.
    """

    def __init__(
        self,
        program: Path,
        folder: Path,
        *arguments: str,
        environment: Optional[Mapping[str, str]] = None,
        stdin: Optional[int] = subprocess.DEVNULL,
        group: bool = False,
    ) -> None:
        """group makes it the leader of a process group of its own."""
        self.address = f"unix:{folder / 's'}"
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*([sys.executable] if program.suffix == ".py" else []), str(program), *arguments],
                env={**os.environ, "CLIPPER_CONTAINER_ADDRESS": self.address, **(environment or {})},
                stdin=stdin,
                start_new_session=group,
                stdout=log,
                stderr=log,
            )
        self.channel = grpc.insecure_channel(self.address, [("grpc.max_receive_message_length", -1), ("grpc.initial_reconnect_backoff_ms", 50), ("grpc.use_local_subchannel_pool", 1)])
        self.stub = container_grpc.ModelContainerServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def __enter__(self) -> ContainerProcess:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def log(self) -> str:
        return self._log.read_text()

    def statuses(self, seconds: float = PATIENCE) -> Iterator[Any]:
        """Yields the health each time that it changes, from now on."""
        for response in self.health.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=seconds):
            yield response.status

    def wait_until_serving(self) -> ContainerProcess:
        for status in self.statuses():
            if status == health_pb2.HealthCheckResponse.SERVING:
                return self
        raise AssertionError("the container ended before it was ready:\n" + self.log())

    def predict(self, *inputs: container_pb2.BatchTensor, rows: int, timeout_micros: int = 0) -> container_pb2.PredictResponse:
        """Returns the answer to one batch on a stream of its own."""
        request = container_pb2.PredictRequest(id=7, rows=rows, inputs=inputs, timeout_micros=timeout_micros)
        (response,) = self.stub.Predict(iter([request]), timeout=PATIENCE)
        assert response.id == 7
        return response  # type: ignore[no-any-return]

    def outputs(self, rows: Union[Sequence[Any], np.ndarray[Any, Any]]) -> Any:
        """Returns what the model says for rows, decoded; an error of the batch or of a row fails."""
        (tensor,), _ = tensors.encode(rows, len(rows))
        response = self.predict(tensor, rows=len(rows))
        assert not response.HasField("error"), response.error
        assert not response.row_errors, response.row_errors
        return tensors.decode(container_pb2.PredictRequest(rows=len(rows), inputs=response.outputs))


    def conforms(self, *rows: Any) -> None:
        """Fails when ``clipper container check`` finds fault with the container. rows are inputs that
        it accepts, as JSON has them. CLIPPER_BINARY names the program; the tests of adapters run
        through tools/test-adapters.sh, which sets it."""
        samples = [word for row in rows for word in ("--sample", json.dumps(row))]
        command = [os.environ["CLIPPER_BINARY"], "container", "check", self.address, *samples]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout


@contextmanager
def deployed(program: Path, folder: Path, model: Optional[Path] = None, *, default: Any, framework: str = "", **environment: str) -> Iterator[Callable[[Any], Any]]:
    """Deploys an adapter as a user does: with the command line, in a Clipper of its own that keeps its files in ``folder``.

    Yields a function that asks by REST and returns what the model says of one input, as JSON has both. default is the default
    output of the application that is asked: scores, a number or a label. framework is the name of the program's folder
    by default. CLIPPER_BINARY names Clipper.
    """
    framework = framework or program.parent.name
    installed = folder / "adapters" / framework
    installed.mkdir(parents=True)
    (installed / (program.name if program.suffix else "adapter")).symlink_to(program)
    (installed / ".venv").symlink_to(sys.prefix)
    listeners = {name: folder / name for name in ("http", "grpc", "admin-http", "admin-grpc")}
    command = [os.environ["CLIPPER_BINARY"], "up", f"--data-dir={folder / 'data'}", f"--abstraction-adapter-dir={installed.parent}"]
    command += [f"--abstraction-run-dir={folder / 'run'}", f"--abstraction-log-dir={folder / 'logs'}"]
    command += [f"--frontend-{name}-listen=unix:{path}" for name, path in listeners.items()]
    log = folder / "clipper.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output)

    def call(*words: str) -> None:
        addresses = {"CLIPPER_ADDRESS": f"unix:{listeners['grpc']}", "CLIPPER_ADMIN_ADDRESS": f"unix:{listeners['admin-grpc']}"}
        done = subprocess.run([command[0], *words], env={**os.environ, **addresses}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, f"{words}: {done.stdout}\n{log.read_text()}"

    def ask(row: Any) -> Any:
        with closing(http.client.HTTPConnection("localhost")) as connection:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(listeners["http"]))
            connection.request("POST", "/v1/applications/test/query", json.dumps({"input": row}))
            answer = json.load(connection.getresponse())
        assert not answer.get("is_default", True), answer
        return answer["predictions"][0]["output"]

    try:
        with grpc.insecure_channel(f"unix:{listeners['admin-grpc']}", [("grpc.max_reconnect_backoff_ms", 100)]) as channel:
            grpc.channel_ready_future(channel).result(PATIENCE)
        path = [f"--path={model}"] if model else []
        settings = [f"--env={name}={value}" for name, value in environment.items()]
        call("model", "deploy", "test", "--version=1", f"--framework={framework}", f"--start-timeout={PATIENCE}s", *path, *settings)
        kind = ["--output=scores"] if isinstance(default, list) else ["--output=label"] if isinstance(default, str) else ["--output=number", "--range=-1000:1000"]
        call("app", "create", "test", "--models=test", f"--default={json.dumps(default)}", "--slo=60s", *kind)
        yield ask
    finally:
        server.terminate()
        assert server.wait(PATIENCE) == 0, log.read_text()


class Stream:
    """A Predict stream that a test holds open."""

    def __init__(self, container: ContainerProcess) -> None:
        self._requests: queue.SimpleQueue[Optional[container_pb2.PredictRequest]] = queue.SimpleQueue()
        self.call = container.stub.Predict(iter(self._requests.get, None), timeout=PATIENCE)

    def send(self, request: container_pb2.PredictRequest) -> None:
        self._requests.put(request)

    def end(self) -> None:
        """Says that no request follows."""
        self._requests.put(None)

    def receive(self) -> container_pb2.PredictResponse:
        return next(self.call)  # type: ignore[no-any-return]
