# SPDX-License-Identifier: Apache-2.0
"""Functions deployed to a real Clipper and queried over REST. CLIPPER_BINARY names the program."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from clipper_proto.v1 import model_service_pb2 as model_pb2

import clipper

ADAPTERS = Path(__file__).parents[3] / "containerrpc" / "adapters"
LISTENERS = ("frontend-http", "frontend-grpc", "frontend-admin-http", "frontend-admin-grpc")


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """A Clipper of its own, on sockets in a folder."""
    folder = tmp_path_factory.mktemp("c")
    addresses = {name: f"unix:{folder / name}" for name in LISTENERS}
    addresses["frontend-http"] = "127.0.0.1:0"
    flags = [word for name, address in addresses.items() for word in (f"--{name}-listen", address)]
    command = [os.environ["CLIPPER_BINARY"], "up", "--data-dir", str(folder / "data"), *flags]
    command += ["--abstraction-python", sys.executable, "--abstraction-adapter-dir", str(ADAPTERS)]
    with subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            rest = ""
            log = []
            for line in process.stdout:
                log.append(line)
                found = re.search(r"(127\.0\.0\.1:[1-9]\d*)", line)
                if found:
                    rest = found[1]
                    break
            assert rest, "clipper up has ended:\n" + "".join(log)
            with clipper.Client(addresses["frontend-admin-grpc"]) as client:
                grpc.channel_ready_future(client._admin).result(60)
                yield SimpleNamespace(client=client, rest=rest, admin=folder / "frontend-admin-http", folder=folder)
        finally:
            process.terminate()
            process.stdout.read()
