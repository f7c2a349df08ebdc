# SPDX-License-Identifier: Apache-2.0
"""A real Clipper with models, for clients that know nothing of it. CLIPPER_BINARY names the program."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

LISTENERS = ("frontend-http", "frontend-grpc", "frontend-admin-http", "frontend-admin-grpc")
MODEL = Path(__file__).parent / "models" / "model.py"
CLIPPER = os.environ["CLIPPER_BINARY"]


@pytest.fixture(scope="session")
def system(tmp_path_factory):
    """Where it listens: `grpc` and `http` for queries, `admin` (gRPC) and `admin_http` for administration."""
    folder = tmp_path_factory.mktemp("clipper")
    command = [CLIPPER, "up", "--data-dir", str(folder / "data"), *(f"--{name}-listen=127.0.0.1:0" for name in LISTENERS)]
    with subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        log = []
        for line in process.stdout:
            log.append(line)
            if "msg=ready" in line:
                break
        draining = threading.Thread(target=lambda: log.extend(process.stdout))
        draining.start()
        listening = dict(re.findall(r'msg=listening server="?([^"\n]*?)"? address=(\S+)', "".join(log)))
        try:
            system = SimpleNamespace(grpc=listening["queries"], http=listening["queries (REST)"], admin=listening["administration"], admin_http=listening["administration (REST)"])
            for kind in ("echo", "total", "lengths"):
                clipper(system, "model", "deploy", kind, "--version", "1", "--env", f"KIND={kind}", "--", sys.executable, str(MODEL))
            clipper(system, "app", "create", "sum", "--models", "total", "--output", "number", "--range=-1e6:1e6", "--default=-1", "--slo", "10s")
            clipper(system, "app", "create", "score", "--models", "echo", "--input", "float64[2]", "--output", "scores", "--default", "[0, 0]", "--slo", "10s")
            yield system
        finally:
            process.terminate()
            draining.join()


def clipper(system, *arguments):
    """Runs the command line against the system."""
    done = subprocess.run([CLIPPER, *arguments[:2], "--admin-address", system.admin, *arguments[2:]], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
