# SPDX-License-Identifier: Apache-2.0
"""Functions as models."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Optional, Union

import grpc
from clipper_proto.v1 import model_service_pb2 as model_pb2

from clipper.client import Client, ClipperError
from clipper.closure import save

POLL_SECONDS = 0.1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def deploy(
    function: Callable[[Any], Any],
    *,
    name: str,
    version: str,
    client: Optional[Client] = None,
    directory: Union[str, os.PathLike[str], None] = None,
    modules: Sequence[ModuleType] = (),
    replicas: int = 1,
    environment: Optional[Mapping[str, str]] = None,
    keep_current: bool = False,
    keep_versions: Optional[int] = None,
    ready_seconds: float = 120.0,
) -> model_pb2.ModelVersion:
    """Deploys a function of a batch as a version of a model, waits until it can be queried, and
    returns the version.

    The function is saved (see ``save``, also for modules) to a new file in directory, and Clipper's
    process launcher runs it with the adapter ``closure``. So the directory must have the same path
    on the machine that runs the replicas; the default suits a Clipper on this one:
    $CLIPPER_CLOSURE_DIR, or clipper/closures in the user's folder for data.

    client is a connection; without one, the default address is connected to. replicas is the number
    of processes, environment further variables of theirs. With keep_current, the model's current
    version stays as it is. keep_versions is how many versions the model keeps from now on that are
    older than the current one; None leaves that as it is. ready_seconds is how long to wait.

    Raises ValueError for a bad name or version, TypeError when the function cannot be pickled, and
    ClipperError when Clipper refuses the version or no replica can serve; its message says why. A
    version that cannot serve stays deployed until it is deleted.
    """
    for what, text in (("name", name), ("version", version)):
        if not _NAME.fullmatch(text):
            raise ValueError(f"the {what} {text!r} is not 1 to 63 letters, digits, '.', '_' or '-', starting with a letter or digit")
    if client is None:
        with Client() as client:
            return deploy(
                function,
                name=name,
                version=version,
                client=client,
                directory=directory,
                modules=modules,
                replicas=replicas,
                environment=environment,
                keep_current=keep_current,
                keep_versions=keep_versions,
                ready_seconds=ready_seconds,
            )
    folder = (Path(directory) if directory is not None else _default_directory()).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    # A name of its own: the file of a version that runs already must stay as it is.
    path = folder / f"{name}-{version}-{uuid.uuid4().hex[:8]}.closure"
    save(function, path, modules=modules)
    wanted = model_pb2.ModelVersion(model=name, version=version, replicas=replicas)
    wanted.container.adapter.framework = "closure"
    wanted.container.adapter.model_path = str(path)
    wanted.container.environment.update(environment or {})
    try:
        request = model_pb2.DeployModelRequest(version=wanted, keep_current=keep_current, keep_versions=keep_versions)
        client.call(client.models.DeployModel, request)
    except ClipperError as e:
        # When the answer was lost, the version may have been deployed.
        if isinstance(e.__cause__, grpc.RpcError) and e.__cause__.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS):
            path.unlink()
        raise
    return _await_ready(client, name, version, ready_seconds)


def _await_ready(client: Client, name: str, version: str, seconds: float) -> model_pb2.ModelVersion:
    deadline = time.monotonic() + seconds
    while True:
        request = model_pb2.GetModelVersionRequest(model=name, version=version)
        found: model_pb2.ModelVersion = client.call(client.models.GetModelVersion, request).version
        if found.state in (model_pb2.MODEL_STATE_READY, model_pb2.MODEL_STATE_STOPPED):
            return found
        if found.state == model_pb2.MODEL_STATE_FAILED:
            raise ClipperError(f"{name} {version} cannot serve: {found.state_message}")
        if time.monotonic() > deadline:
            raise ClipperError(f"{name} {version} is not ready after {seconds:g} s: {found.state_message}")
        time.sleep(POLL_SECONDS)


def _default_directory() -> Path:
    chosen = os.environ.get("CLIPPER_CLOSURE_DIR")
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(chosen) if chosen else Path(data) / "clipper" / "closures"
