# SPDX-License-Identifier: Apache-2.0
"""The promise of the container RPC: an adapter for a framework is under 25 lines of code."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

LIMIT = 25
ADAPTERS = Path(__file__).parents[2] / "adapters"
FOLDERS = sorted(p for p in ADAPTERS.iterdir() if p.is_dir())
IGNORED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}


def lines_of_cpp(source):
    """Counts the lines of C++ that have code: neither blank nor only a comment."""
    code = re.sub(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', lambda m: m[0] if m[0][0] == '"' else "\n" * m[0].count("\n"), source, flags=re.DOTALL)
    return sum(1 for line in code.splitlines() if line.strip())


def lines_of_python(source):
    """Counts the lines that have code: neither blank nor only a comment or a docstring."""
    documentation = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(node, clean=False) is not None:
            documentation.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in IGNORED:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - documentation)


def test_what_counts_in_python():
    source = '''# comment
"""Documentation
of two lines."""

import os  # counts


def f(a,
      b):
    """Documentation."""
    # comment
    return """not
documentation"""
'''
    assert lines_of_python(source) == 5


def test_what_counts_in_cpp():
    source = """// comment
/* comment
   of two lines */
#include <string>  // counts

std::string f() {
  /* comment */ return "// counts, /* too";
}
"""
    assert lines_of_cpp(source) == 4


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_adapters_are_short(folder, capsys):
    python = [p for p in folder.rglob("*.py") if not p.name.startswith("test_")]
    cpp = [p for p in folder.rglob("*") if p.suffix in (".cc", ".h")]
    assert python or cpp, f"{folder} has no adapter"
    lines = sum(lines_of_python(p.read_text()) for p in python) + sum(lines_of_cpp(p.read_text()) for p in cpp)
    with capsys.disabled():
        print(f"\nadapter {folder.name}: {lines} lines of code")
    assert lines < LIMIT
    for name in ("README.md", "requirements.txt", "Dockerfile", f"test_{folder.name.replace('-', '_')}.py", *(["CMakeLists.txt"] if cpp else [])):
        assert (folder / name).exists(), f"{folder} has no {name}"

@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_readmes_say_commands_that_exist(folder):
    """Every file of the repository that a command names exists, and every setting is the adapter's; the image is built under the name that is run."""
    text = (folder / "README.md").read_text()
    root = ADAPTERS.parents[1]
    commands = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    assert len(commands) > 5, "three commands serve a model, three make an image and run it"
    named = {word for command in commands for word in re.findall(r"(?<![\w/])(?:containerrpc|gen|sdk|tools)/[\w./-]+", command)}
    assert {word for word in named if not (root / word).exists()} <= {f"containerrpc/adapters/{folder.name}/adapter"}
    assert any(f"adapters/{folder.name}/" in c or f"cpp-adapter.sh {folder.name})" in c for c in commands)
    if (folder / "adapter.py").exists():  # In C++ the runtime's libraries have settings too.
        program = (folder / "adapter.py").read_text()
        prefix = folder.name.upper() + "_"
        assert {word for word in re.findall(rf"\b{prefix}[A-Z_]+\b", text) if word not in program} == set()

    built = {tag for command in commands for tag in re.findall(r"docker build .*-t (\S+)", command)}
    (run,) = (command.split()[-1] for command in commands if command.startswith("docker run"))
    assert run == f"clipper-{folder.name}"
    assert run in built
    assert set(re.findall(r"--framework (\S+)", "\n".join(commands))) <= {folder.name}
