# SPDX-License-Identifier: Apache-2.0
"""Serves a Python function of a batch that the package clipper saved."""

from clipper_container import ModelError, serve


class Closure:
    expects = "a file written by clipper.save or clipper.deploy, and the modules that its function imports"

    def __init__(self, path):
        import json
        import pickle
        import sys

        import cloudpickle

        with open(path, "rb") as file:
            saved = json.loads(file.readline())
            here = {"python": "{}.{}".format(*sys.version_info), "cloudpickle": cloudpickle.__version__}
            for program, version in here.items():
                if saved[program] != version:
                    raise ModelError(f"it was saved with {program} {saved[program]}, and here is {program} {version}")
            self.predict = pickle.load(file)
        self.properties = {"framework": f"cloudpickle {cloudpickle.__version__}"}


serve(Closure)
