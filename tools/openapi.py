# SPDX-License-Identifier: Apache-2.0
"""Rewrites the generated OpenAPI to what the REST API really takes and gives.

Inputs and outputs are tensors in the proto and natural JSON over REST, and errors have a form of
their own: the frontend translates. The generator cannot know that, so the schemas are patched here,
once, after every generation.
"""

import json
import sys

NATURAL = {
    "input": "A number, a list, nested lists, a string, {\"b64\": \"...\"} for bytes, or an object with one member "
    "for each named input, as the application's signature says.",
    "output": "A number, a string, a list or nested lists, {\"b64\": \"...\"} for bytes, or an object with one member "
    "for each named output.",
}

EXAMPLES = {
    "QueryBody": {"input": [0.1, 0.2], "context": "user-7"},
    "QueryBatchBody": {"queries": [{"input": [0.1, 0.2]}, {"input": [0.3, 0.4], "id": "second"}]},
    "FeedbackBody": {"feedback_id": "", "truth": 7},
    "FeedbackBatchBody": {"items": [{"feedback_id": "", "truth": 7}, {"input": [0.1, 0.2], "truth": 7}]},
    "Application": {
        "name": "digits",
        "latency_objective": "0.1s",
        "default_output": 0,
        "policy": {"name": "exp4"},
        "models": [{"model": "svm"}, {"model": "forest"}],
    },
    "DeployModelRequest": {
        "version": {
            "model": "svm",
            "version": "1",
            "container": {"adapter": {"framework": "sklearn", "model_path": "/models/svm.joblib"}},
            "replicas": 1,
        }
    },
    "SetCurrentVersionBody": {"version": "1"},
    "UpdateModelVersionBody": {"replicas": 2},
}

PATCH_EXAMPLE = {"confidence_threshold": 0.5}

# Which members of a body the path gives, or the frontend does not take there.
NOT_IN_BODY = {"FeedbackRequest": ["application"]}

ERROR_BODY = "ErrorBody"


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


def errors(definitions: dict) -> None:
    """Gives errors the form that the frontend writes."""
    reasons = definitions["ErrorReason"]
    reasons["enum"] = [r.removeprefix("ERROR_REASON_") for r in reasons["enum"]][1:]
    reasons.pop("default", None)
    reasons["description"] = reasons["description"].replace("ERROR_REASON_", "").replace(" - UNSPECIFIED: Not set.\n", "")
    properties = definitions["Error"]["properties"]
    definitions["Error"] = {
        "type": "object",
        "description": "Error says what is wrong.",
        "properties": {
            "code": {"type": "string", "description": "The canonical status code, as INVALID_ARGUMENT."},
            "status": {"type": "integer", "format": "int32", "description": "The HTTP status."},
            "message": properties["message"],
            "reason": properties["reason"],
            "field": properties["field"],
            "retry_after_ms": {
                "type": "integer",
                "format": "int64",
                "description": "The time in milliseconds after which a repetition may succeed; absent when that is not known.",
            },
        },
        "required": ["code", "status", "message"],
    }
    definitions[ERROR_BODY] = {
        "type": "object",
        "description": "What every request that fails is answered with.",
        "properties": {"error": {"$ref": "#/definitions/Error"}},
        "required": ["error"],
    }


def operations(spec: dict) -> None:
    """Names a path's parameters alike for all methods, and adds the errors."""
    paths: dict = {}
    for path, methods in spec["paths"].items():
        for method in methods.values():
            for parameter in method.get("parameters", []):
                if parameter["in"] == "path":
                    parameter["name"] = parameter["name"].removesuffix(".name")
            method["responses"]["default"] = {
                "description": "The request failed.",
                "schema": {"$ref": f"#/definitions/{ERROR_BODY}"},
            }
            if method["operationId"] == "ApplicationService_UpdateApplication":
                body = next(p for p in method["parameters"] if p["in"] == "body")
                body["schema"]["example"] = PATCH_EXAMPLE
        paths.setdefault(path.replace(".name}", "}"), {}).update(methods)
    spec["paths"] = dict(sorted(paths.items()))
    used = {tag for methods in paths.values() for method in methods.values() for tag in method["tags"]}
    spec["tags"] = [tag for tag in spec["tags"] if tag["name"] in used]


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
    definitions = spec["definitions"]
    for name, definition in definitions.items():
        if "properties" in definition:
            definition["properties"] = natural(definition["properties"])
            for member in NOT_IN_BODY.get(name, []):
                definition["properties"].pop(member)
        if name in EXAMPLES:
            definition["example"] = EXAMPLES[name]
    definitions.pop("Tensor", None)
    errors(definitions)
    operations(spec)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(spec, f, indent=2)
        f.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
