# SPDX-License-Identifier: Apache-2.0
"""The process around a container: configuration, signals, exit codes."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Optional

from clipper_proto.v1 import model_container_service_pb2 as container_pb2
from clipper_proto.v1 import tensor_pb2

from clipper_container import link, logs
from clipper_container.errors import ModelError
from clipper_container.link import Link, Message, Slots
from clipper_container.model import Container, Model, Options, load
from clipper_container.worker import Workers, parse

log = logging.getLogger("clipper_container")

# EX_CONFIG of sysexits.h: starting again will not help.
EXIT_NEVER = 78
EXIT_RETRY = 1

STOPPING = (signal.SIGTERM, signal.SIGINT)

# How long a container that has lost its parent may take to end by itself.
ORPHAN_SECONDS = 5.0


def serve(
    container: Container,
    *,
    inputs: Sequence[tensor_pb2.TensorSpec] = (),
    outputs: Sequence[tensor_pb2.TensorSpec] = (),
    max_batch_rows: int = 0,
    parallel: int = 1,
    properties: Optional[Mapping[str, str]] = None,
    argv: Optional[Sequence[str]] = None,
) -> NoReturn:
    """Serves a container until SIGTERM or SIGINT, and ends the process.

    container is a function of one batch, or a class that is called with the path of the saved
    model (with nothing, if it takes nothing) and whose objects have a method ``predict`` of one
    batch. While the class loads the model the container is up and not ready. A class attribute
    ``expects`` completes the message about a model that cannot be loaded: "expected ...".

    predict is given all rows of the only input: an array of shape [rows, shape...], read-only; a
    list of arrays when rows differ in shape; a list for strings and byte strings; or a dict of
    these by name when there are several inputs. It returns one entry for each row, as an array or
    a list; or a dict of these by name. In a list a RowError stands for a row that failed. An
    exception fails the batch, not the container.

    inputs and outputs are the signature of one row (see ``spec``). max_batch_rows limits a batch,
    0 does not. parallel is the number of batches that may be predicted at the same time, on as
    many threads; 1 means that predict is never called twice at once. properties describe the
    container to people. The objects of a class may have these five as attributes instead.

    Settings come from the environment or from argv (the command line by default); see --help. The
    exit code is 0 after a signal, 78 when the model can never be loaded, 1 when another attempt
    may succeed, 2 when the command line is wrong.
    """
    settings = _parser().parse_args(argv)
    logs.configure(settings.log_level)
    sys.exit(_run(container, Options(inputs, outputs, max_batch_rows, parallel, properties or {}), settings))


def _run(container: Container, options: Options, settings: argparse.Namespace) -> int:
    process = _Process(settings)
    threading.Thread(target=_watch_signals, args=(process, _signals()), name="signals", daemon=True).start()
    if settings.exit_with_parent:
        threading.Thread(target=_watch_parent, args=(process,), name="parent", daemon=True).start()
    Workers(lambda: load(container, settings.model_path, options), process.link, process.ready, process.failed).start()
    code = process.wait()
    if process.failure is not None:  # SystemExit is the model's own wish
        log.debug("container failed", exc_info=process.failure)
        logs.last_line(process.failure)
        return EXIT_NEVER if isinstance(process.failure, ModelError) else EXIT_RETRY
    if code < 0:
        logs.last_line(RuntimeError(f"the process of the gRPC server was ended by {signal.Signals(-code).name}"))
        return EXIT_RETRY
    if code > 0:  # It has said why.
        logging.disable()
        return code
    log.info("stopped")
    return 0


class _Process:
    """The process of the gRPC server, as the model's sees it. All methods may be called on any thread."""

    def __init__(self, settings: argparse.Namespace) -> None:
        self._settings = settings
        self.failure: Optional[BaseException] = None
        mine, its = socket.socketpair()
        requests, answers = link.make_slots(), link.make_slots()
        self.link = Link(mine, Slots(requests), Slots(answers), parse)
        names = ["address", "model_name", "model_version", "max_message_bytes", "register_address", "advertise_address", "metrics_address", "log_level"]
        names += ["tls_cert", "tls_key", "tls_client_ca", "register_tls", "register_tls_ca", "register_tls_cert", "register_tls_key", "register_token_file"]
        said: dict[str, Any] = {name: getattr(settings, name) for name in names}
        said.update(connection=its.fileno(), requests=requests, answers=answers)
        # A signal to the whole group is this process's to handle: the server stops when it is told to.
        handled = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; from clipper_container.server import main; main()", json.dumps(said)],
            stdin=subprocess.DEVNULL,
            pass_fds=(its.fileno(), *requests, *answers),
        )
        signal.pthread_sigmask(signal.SIG_SETMASK, handled)
        its.close()

    def ready(self, model: Model) -> None:
        """Lets the server serve the model."""
        description = container_pb2.DescribeResponse(
            model=self._settings.model_name,
            version=self._settings.model_version,
            max_batch_rows=model.options.max_batch_rows,
            max_message_bytes=self._settings.max_message_bytes,
            max_in_flight=model.options.max_in_flight,
            properties=model.properties(),
        )
        description.signature.inputs.extend(model.options.inputs)
        description.signature.outputs.extend(model.options.outputs)
        self.link.send(Message(link.READY, description.SerializeToString()))

    def failed(self, error: BaseException) -> None:
        """Stops the server because of an error."""
        self.failure = error
        self.stop()

    def stop(self) -> None:
        """Makes the server drain and end."""
        try:
            self.link.send(Message(link.STOP))
        except OSError as e:
            log.debug("the server has ended", extra={"error": e})

    def wait(self) -> int:
        """Waits until the server has ended, and returns its exit code."""
        return self._process.wait()


def _signals() -> int:
    """Returns a file that the number of each signal is written to. A handler would not do: Python calls it on the main
    thread, which waits for the server, and the system may give the signal to another one."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in STOPPING:
        signal.signal(number, lambda *_: None)
    return reading


def _watch_signals(process: _Process, file: int) -> None:
    """Stops at the signals that say so."""
    while (number := os.read(file, 1)) and number[0] not in STOPPING:
        pass
    process.stop()


def _watch_parent(process: _Process) -> None:
    """Stops when the pipe that the parent holds is closed, even when the model hangs."""
    while os.read(0, 4096):
        pass
    log.warning("the parent process is gone")
    process.stop()
    time.sleep(ORPHAN_SECONDS)
    os._exit(EXIT_RETRY)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="A Clipper model container.",
        epilog="Each setting is also an environment variable; the command line has precedence.",
        allow_abbrev=False,
    )

    def level(text: str) -> str:
        if text not in ("debug", "info", "warning", "error"):
            raise ValueError(text)
        return text

    def setting(flag: str, variable: str, default: str, text: str, convert: Callable[[str], object] = str) -> None:
        # argparse converts a default that is a string, so the environment is checked as well.
        parser.add_argument(
            flag,
            default=os.environ.get(variable, default),
            type=convert,
            metavar=flag.rpartition("-")[2].upper(),
            help=f"{text} [{variable}; default: {default or 'none'}]",
        )

    setting("--address", "CLIPPER_CONTAINER_ADDRESS", "127.0.0.1:7000", "unix:/path or host:port to serve on; port 0 takes a free one")
    setting("--model-name", "CLIPPER_MODEL_NAME", "", "name of the model")
    setting("--model-version", "CLIPPER_MODEL_VERSION", "", "version of the model")
    setting("--model-path", "CLIPPER_MODEL_PATH", "", "file or folder of the saved model")
    setting("--register-address", "CLIPPER_REGISTER_ADDRESS", "", "gRPC address of Clipper's administration, to register there as a replica")
    setting("--advertise-address", "CLIPPER_ADVERTISE_ADDRESS", "", "where Clipper reaches this container, if not at --address")
    setting("--tls-cert", "CLIPPER_CONTAINER_TLS_CERT", "", "file of the certificate to serve with over TLS")
    setting("--tls-key", "CLIPPER_CONTAINER_TLS_KEY", "", "file of the certificate's key")
    setting("--tls-client-ca", "CLIPPER_CONTAINER_TLS_CLIENT_CA", "", "file of the CAs of which Clipper must have a certificate")
    parser.add_argument(
        "--register-tls",
        action="store_true",
        default=os.environ.get("CLIPPER_REGISTER_TLS") == "1",
        help="register over TLS, trusting the CAs of the system [CLIPPER_REGISTER_TLS=1]",
    )
    setting("--register-tls-ca", "CLIPPER_REGISTER_TLS_CA", "", "file of the CAs to trust when registering")
    setting("--register-tls-cert", "CLIPPER_REGISTER_TLS_CERT", "", "file of the certificate to present when registering")
    setting("--register-tls-key", "CLIPPER_REGISTER_TLS_KEY", "", "file of that certificate's key")
    setting("--register-token-file", "CLIPPER_REGISTER_TOKEN_FILE", "", "file with the token to register with, or the token itself in CLIPPER_REGISTER_TOKEN")
    setting("--metrics-address", "CLIPPER_METRICS_ADDRESS", "", "host:port to serve metrics to Prometheus on; :port is on loopback")
    setting("--max-message-bytes", "CLIPPER_MAX_MESSAGE_BYTES", str(64 << 20), "largest request message", int)
    setting("--log-level", "CLIPPER_LOG_LEVEL", "info", "debug, info, warning or error", level)
    parser.add_argument(
        "--exit-with-parent",
        action="store_true",
        default=os.environ.get("CLIPPER_EXIT_WITH_PARENT") == "1",
        help="stop when standard input is closed [CLIPPER_EXIT_WITH_PARENT=1]",
    )
    return parser
