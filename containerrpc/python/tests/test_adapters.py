# SPDX-License-Identifier: Apache-2.0
"""The promise of the container RPC: an adapter for a framework is under 25 lines of code."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest

LIMIT = 25
ADAPTERS = Path(__file__).parents[2] / "adapters"
IGNORED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}


def lines_of_code(source):
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


def test_what_counts():
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
    assert lines_of_code(source) == 5


@pytest.mark.parametrize("folder", sorted(p for p in ADAPTERS.iterdir() if p.is_dir()), ids=lambda p: p.name)
def test_adapters_are_short(folder, capsys):
    programs = [p for p in folder.rglob("*.py") if not p.name.startswith("test_")]
    assert programs, f"{folder} has no adapter"
    lines = sum(lines_of_code(p.read_text()) for p in programs)
    with capsys.disabled():
        print(f"\nadapter {folder.name}: {lines} lines of code")
    assert lines < LIMIT
    for name in ("README.md", "requirements.txt", "Dockerfile", f"test_{folder.name}.py"):
        assert (folder / name).exists(), f"{folder} has no {name}"
