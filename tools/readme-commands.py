# SPDX-License-Identifier: Apache-2.0
"""Follows the README of an adapter in Python to the letter: makes the model that it says, and serves it.

The interpreter that runs this is the one of which the README says what to install. What is not followed: pip's
command, whose files must exist, and a model that the README does not make itself.

    python tools/readme-commands.py FOLDER
"""

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from clipper_container.testing import ContainerProcess

ROOT = Path(__file__).resolve().parents[1]


def main(folder: Path) -> None:
    blocks = re.findall(r"(?:^    .*\n)+", (folder / "README.md").read_text(), re.MULTILINE)
    install, make, serve = (line.strip() for line in blocks[0].splitlines())
    words = shlex.split(install)
    assert words[:2] == ["pip", "install"], install
    missing = [word for word in words[2:] if word != "-r" and not (ROOT / word).exists()]
    assert not missing, f"{folder}/README.md says to install what does not exist: {missing}"
    if not make.startswith("python -c "):
        print(f"README: its model is not made by one command: {make}")
        return
    words = shlex.split(serve)
    assert words[0] == "python" and words[-2:] == ["--address", "127.0.0.1:7000"], serve
    with tempfile.TemporaryDirectory() as made:
        subprocess.run([sys.executable, *shlex.split(make)[1:]], check=True, cwd=made)
        arguments = [str(Path(made) / word) if (Path(made) / word).exists() else word for word in words[2:-2]]
        with ContainerProcess(ROOT / words[1], Path(made), *arguments).wait_until_serving():
            print("README: its model is made and served")


main(Path(sys.argv[1]).resolve())
