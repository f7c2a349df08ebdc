# SPDX-License-Identifier: Apache-2.0
"""The process around a container: configuration, signals, exit codes."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn, Optional

from clipper_proto.v1 import tensor_pb2

from clipper_container import logs, registration
from clipper_container.errors import ModelError, describe
from clipper_container.model import Container, Options, load
from clipper_container.server import Server

log = logging.getLogger("clipper_container")

# EX_CONFIG of sysexits.h: starting again will not help.
EXIT_NEVER = 78
EXIT_RETRY = 1

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
    async def main() -> None:
        server = Server(
            lambda: load(container, settings.model_path, options),
            settings.model_name,
            settings.model_version,
            settings.max_message_bytes,
            registration.Settings(settings.register_address, settings.advertise_address) if settings.register_address else None,
            settings.metrics_address,
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.stop)
        if settings.exit_with_parent:
            threading.Thread(target=_watch_parent, args=(loop, server), name="parent", daemon=True).start()
        await server.run(settings.address)

    try:
        asyncio.run(main())
    except ModelError as e:
        log.debug("model not loaded", exc_info=e)
        return _fail(EXIT_NEVER, e)
    except SystemExit as e:  # the model's own wish
        return _fail(EXIT_RETRY, e)
    except Exception as e:
        log.debug("container failed", exc_info=e)
        return _fail(EXIT_RETRY, e)
    log.info("stopped")
    return 0


def _fail(code: int, error: BaseException) -> int:
    # Whoever started the container shows the last line, so this one is for people, and nothing follows: not even
    # what a framework has to say about its end.
    print(" ".join(describe(error).split()), file=sys.stderr, flush=True)
    logging.disable()
    return code


def _watch_parent(loop: asyncio.AbstractEventLoop, server: Server) -> None:
    """Stops when the pipe that the parent holds is closed, even when the model hangs."""
    while os.read(0, 4096):
        pass
    log.warning("the parent process is gone")
    loop.call_soon_threadsafe(server.stop)
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
