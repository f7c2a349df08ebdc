# SPDX-License-Identifier: Apache-2.0
"""The example of docs/frameworks.md works as it stands there. tools/test-cpp.sh has the one in C++."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np

from clipper_container.testing import ContainerProcess

PAGE = Path(__file__).parents[3] / "docs" / "frameworks.md"


def test_the_container_of_the_page(tmp_path):
    section = PAGE.read_text().split("### In Python\n")[1].split("### ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    prepare, serve, check, deploy = re.findall(r"^    (.*)$", section.split("```")[-1], re.MULTILINE)
    program = tmp_path / "polynomial.py"
    program.write_text(code)
    subprocess.run(prepare, shell=True, check=True, cwd=tmp_path)

    words = serve.split()
    assert [words[:2], words[-3:]] == [["python", program.name], ["--address", "127.0.0.1:7000", "&"]]
    assert "127.0.0.1:7000" in check
    assert "127.0.0.1:7000" in deploy
    model = [str(tmp_path / word) if (tmp_path / word).exists() else word for word in words[2:-3]]
    with ContainerProcess(program, tmp_path, *model).wait_until_serving() as container:
        x = np.linspace(-2, 2, 9)
        np.testing.assert_array_equal(container.outputs(x), x * x - 2)
        container.conforms()

    (tmp_path / "coefficients.txt").write_text("one\n")
    with ContainerProcess(program, tmp_path, *model) as container:
        assert container.process.wait(60) == 78, container.log()
        assert "expected a text file with one coefficient on each line" in container.log()
