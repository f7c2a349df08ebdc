# SPDX-License-Identifier: Apache-2.0
"""Files of Python functions, which the adapter ``closure`` serves.

The first line is JSON: the versions of Python and cloudpickle that wrote the file. The function's
pickle follows.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import sysconfig
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Callable, Union

import cloudpickle


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


def _is_installed(module: ModuleType) -> bool:
    """Says whether a module comes with Python or a package, or is __main__, which cloudpickle writes anyway."""
    if module.__name__ == "__main__" or not getattr(module, "__file__", None):
        return True
    file = os.path.realpath(str(module.__file__))
    return any(file.startswith(os.path.realpath(sysconfig.get_path(name)) + os.sep) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
