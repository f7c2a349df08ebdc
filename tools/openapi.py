# SPDX-License-Identifier: Apache-2.0
"""Makes OpenAPI 3.1 of the generated OpenAPI 2.0, as the REST API really is.

Inputs and outputs are tensors in the proto and natural JSON over REST, and errors are problem
details (RFC 9457): the frontend translates. The generator cannot know that, so the schemas are patched
here, once, after every generation. Protocol buffers read more than they write: null is an absent
field, and a number may be in a string. The description says what is written, and null.
"""

import json
import os
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

PROBLEM = "application/problem+json"
STREAM = "application/x-ndjson"

# The formats of protocol buffers' numbers. The generator calls an unsigned one of 32 bits "int64", and writes those
# of 64 bits as strings, as they are in JSON.
UINT32 = {"type": "integer", "format": "int64", "minimum": 0, "maximum": 2**32 - 1}

# How a caller says who it is.
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key or a JSON Web Token."},
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "An API key."},
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


def errors(definitions: dict) -> None:
    """Gives errors the form that the frontend writes."""
    reasons = definitions["ErrorReason"]
    reasons["enum"] = [r.removeprefix("ERROR_REASON_") for r in reasons["enum"]][1:]
    reasons.pop("default", None)
    reasons["description"] = reasons["description"].replace("ERROR_REASON_", "").replace(" - UNSPECIFIED: Not set.\n", "")
    properties = definitions["Error"]["properties"]
    definitions["Error"] = {
        "type": "object",
        "description": "What every request that fails is answered with: problem details (RFC 9457).",
        "properties": {
            "type": {
                "type": "string",
                "description": "urn:clipper:error: and the reason; about:blank without one.",
            },
            "title": {"type": "string", "description": "What the reason means."},
            "status": {"type": "integer", "format": "int32", "description": "The HTTP status."},
            "detail": {**properties["message"]},
            "code": {"type": "string", "description": "The canonical status code, as INVALID_ARGUMENT."},
            "reason": properties["reason"],
            "field": properties["field"],
            "retry_after_ms": {
                "type": "integer",
                "format": "int64",
                "description": "The time in milliseconds after which a repetition may succeed; absent when that is not known.",
            },
        },
        "required": ["type", "title", "status", "detail", "code"],
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
                "schema": {"$ref": "#/definitions/Error"},
            }
            if method["operationId"] == "ApplicationService_UpdateApplication":
                body = next(p for p in method["parameters"] if p["in"] == "body")
                body["schema"]["example"] = PATCH_EXAMPLE
        paths.setdefault(path.replace(".name}", "}"), {}).update(methods)
    spec["paths"] = dict(sorted(paths.items()))
    used = {tag for methods in paths.values() for method in methods.values() for tag in method["tags"]}
    spec["tags"] = [tag for tag in spec["tags"] if tag["name"] in used]


def schema31(schema: dict, nullable: bool = False) -> dict:
    """Returns a schema in the form of 3.1: references, examples, null."""
    new = {}
    for key, value in schema.items():
        if key == "$ref":
            new[key] = value.replace("#/definitions/", "#/components/schemas/")
        elif key == "example":
            new["examples"] = [value]
        elif key == "properties":
            new[key] = {name: schema31(child, nullable=True) for name, child in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            new[key] = schema31(value)
        elif not (key == "default" and "enum" in schema):
            new[key] = value
    if (schema.get("type"), schema.get("format")) == ("integer", "int64") and "minimum" not in schema and nullable:
        new.update(UINT32)
    if "$ref" in new:
        new.pop("type", None)
    if "properties" in new and "additionalProperties" not in new:
        new["additionalProperties"] = False  # Reading is strict.
    if "$ref" in new and nullable:
        described = {k: new[k] for k in ("description", "title") if k in new}
        return {**described, "anyOf": [{"$ref": new["$ref"]}, {"type": "null"}]}
    if nullable and isinstance(new.get("type"), str):
        new["type"] = [new["type"], "null"]
        if "enum" in new:
            new["enum"] = [*new["enum"], None]
    return new


def operation31(operation: dict) -> dict:
    """Returns an operation in the form of 3.1: bodies are apart from parameters, and have types."""
    new = {k: v for k, v in operation.items() if k not in ("parameters", "responses")}
    new["parameters"] = []
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "body":
            new["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema31(parameter["schema"])}}}
            continue
        known = {k: v for k, v in parameter.items() if k in ("name", "in", "description", "required")}
        rest = {k: v for k, v in parameter.items() if k not in known and k != "collectionFormat"}
        if (rest.get("type"), rest.get("format")) == ("integer", "int64"):
            rest = UINT32
        if parameter["in"] == "path":
            rest["minLength"] = 1
        new["parameters"].append({**known, "schema": rest})
    new["responses"] = {}
    for code, response in operation["responses"].items():
        stream = response["description"].endswith("(streaming responses)")
        kind = PROBLEM if code == "default" else STREAM if stream else "application/json"
        new["responses"][code] = {
            "description": response["description"].removesuffix("(streaming responses)"),
            "content": {kind: {"schema": schema31(response["schema"])}},
        }
    return new


def upgrade(spec: dict) -> dict:
    """Returns the description in the form of 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {**spec["info"], "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "tags": spec["tags"],
        # Without keys, which are off until they are configured, nothing is asked for.
        "security": [{}, *({name: []} for name in SECURITY)],
        "paths": {
            path: {name: operation31(operation) for name, operation in methods.items()}
            for path, methods in spec["paths"].items()
        },
        "components": {
            "schemas": {name: schema31(definition) for name, definition in spec["definitions"].items()},
            "securitySchemes": SECURITY,
        },
    }


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
    out = os.path.join(os.path.dirname(path), "clipper.openapi.json")
    with open(out, "w", encoding="utf-8") as f:
        json.dump(upgrade(spec), f, indent=2)
        f.write("\n")
    os.remove(path)


if __name__ == "__main__":
    main(sys.argv[1])
