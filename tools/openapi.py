# SPDX-License-Identifier: Apache-2.0
"""Rewrites the generated OpenAPI to what the REST API really takes and gives.

Inputs and outputs are tensors in the proto and natural JSON over REST: the frontend translates.
The generator cannot know that, so the schemas are patched here, once, after every generation.
"""

import json
import sys

NATURAL = {
    "input": "A number, a list, nested lists, a string, {\"b64\": \"...\"} for bytes, or an object with one member "
    "for each named input, as the application's signature says.",
    "output": "A number, a string, a list or nested lists, {\"b64\": \"...\"} for bytes, or an object with one member "
    "for each named output.",
}


def natural(properties: dict) -> dict:
    """Returns the properties with tensors replaced by natural JSON, in the same order."""
    patched = {}
    for name, schema in properties.items():
        if name == "inputs" and "input_json" in properties:
            continue
        if name == "input_json":
            patched["input"] = {"description": NATURAL["input"]}
        elif name == "outputs" and schema.get("items", {}).get("$ref") == "#/definitions/Tensor":
            patched["output"] = {"description": NATURAL["output"]}
        else:
            patched[name] = schema
    return patched


def main(path: str) -> None:
    """Patches the file in place."""
    with open(path, encoding="utf-8") as f:
        spec = json.load(f)
    spec["info"] = {
        "title": "Clipper",
        "version": "v1",
        "description": "Queries and feedback are on the query listener (default 127.0.0.1:1337), "
        "administration on the administration listener (default 127.0.0.1:1338).",
        "license": {"name": "Apache-2.0"},
    }
    for definition in spec["definitions"].values():
        if "properties" in definition:
            definition["properties"] = natural(definition["properties"])
    spec["definitions"].pop("Tensor", None)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(spec, f, indent=2)
        f.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
