# SPDX-License-Identifier: Apache-2.0
"""Files of Python functions, which the adapter ``closure`` serves.

The first line is JSON: the versions of Python and cloudpickle that wrote the file. The function's
pickle follows.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import sysconfig
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Union

import cloudpickle

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def save(function: Callable[[Any], Any], path: Union[str, os.PathLike[str]], *, modules: Sequence[ModuleType] = ()) -> None:
    """Writes a function of a batch to a new file, with what it refers to.

    Functions and classes of a notebook, or of the script that runs, are part of the file; so is the
    module that defines the function, unless it is installed, and those in modules. All other modules
    must be installed where the function runs, as must the same Python (3.11, say) and the same
    version of cloudpickle. What the function is given and may return is said by
    ``clipper_container.serve``.

    Raises FileExistsError when the file exists, and TypeError for what cannot be pickled, such as
    a lock or a connection.
    """
    if not callable(function):
        raise TypeError(f"a function is needed, not {type(function).__name__}")
    header = {"python": "{}.{}".format(*sys.version_info), "cloudpickle": cloudpickle.__version__}
    with contextlib.ExitStack() as stack:
        own = sys.modules.get(getattr(function, "__module__", None) or "")
        for module in {*modules, *([own] if own is not None and not _is_installed(own) else [])}:
            if module.__name__ not in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.register_pickle_by_value(module)
                stack.callback(cloudpickle.unregister_pickle_by_value, module)
        try:
            pickled = cloudpickle.dumps(function)
        except Exception as e:
            raise TypeError(f"the function cannot be pickled: {e}; make what it refers to within it, or as it is first called") from e
    with open(path, "xb") as file:
        file.write(json.dumps(header).encode() + b"\n" + pickled)


def save_new(
    function: Callable[[Any], Any], name: str, version: str, directory: Union[str, os.PathLike[str], None], modules: Sequence[ModuleType]
) -> Path:
    """Writes the function of a version to a new file, and returns its absolute path."""
    for what, text in (("name", name), ("version", version)):
        if not _NAME.fullmatch(text):
            raise ValueError(f"the {what} {text!r} is not 1 to 63 letters, digits, '.', '_' or '-', starting with a letter or digit")
    folder = (Path(directory) if directory is not None else _default_directory()).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    # A name of its own: the file of a version that runs already must stay as it is.
    path = folder / f"{name}-{version}-{uuid.uuid4().hex[:8]}.closure"
    save(function, path, modules=modules)
    return path


def _default_directory() -> Path:
    chosen = os.environ.get("CLIPPER_CLOSURE_DIR")
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(chosen) if chosen else Path(data) / "clipper" / "closures"


def _is_installed(module: ModuleType) -> bool:
    """Says whether a module comes with Python or a package, or is __main__, which cloudpickle writes anyway."""
    if module.__name__ == "__main__" or not getattr(module, "__file__", None):
        return True
    file = os.path.realpath(str(module.__file__))
    return any(file.startswith(os.path.realpath(sysconfig.get_path(name)) + os.sep) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
