# SPDX-License-Identifier: Apache-2.0
"""Functions as models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Callable, Optional, Union

from clipper_proto.v1 import model_service_pb2 as model_pb2

from clipper.client import Client


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
    """Deploys a function of a batch as a version of a model: see ``Client.deploy``, also for the options.

    client is a connection; without one, the default address is connected to.
    """
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
    return client.deploy(
        function,
        name=name,
        version=version,
        directory=directory,
        modules=modules,
        replicas=replicas,
        environment=environment,
        keep_current=keep_current,
        keep_versions=keep_versions,
        ready_seconds=ready_seconds,
    )
