# SPDX-License-Identifier: Apache-2.0
"""Rewrites the generated OpenAPI 2.0 to OpenAPI 3.1, and to what the REST API really takes and gives.

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

# What a tensor is in natural JSON; which of these is right, the application's signature says.
NATURAL_SCHEMA = {
    "type": ["number", "string", "boolean", "array", "object"],
    "items": {"$ref": "#/definitions/Natural"},
    "minItems": 1,
    "additionalProperties": {"$ref": "#/definitions/Natural"},
    "minProperties": 1,
    "description": "A tensor, or several by name, in natural JSON.",
    "examples": [7, [0.1, 0.2], [[1, 2, 3], [4, 5, 6]], "text", {"b64": "AAEC"}, {"image": [[0, 1], [1, 0]], "caption": "text"}],
}

# What the comments of the protos say in words.
REQUIRED = {
    "QueryBody": ["input"],
    "BatchQuery": ["input"],
    "QueryBatchBody": ["queries"],
    "FeedbackBatchBody": ["items"],
    "SetCurrentVersionBody": ["version"],
    "DeployModelRequest": ["version"],
}
MEMBER_BOUNDS = {
    ("QueryBatchBody", "queries"): {"minItems": 1, "maxItems": 10000},
    ("FeedbackBatchBody", "items"): {"minItems": 1, "maxItems": 10000},
    ("FeedbackBody", "reward"): {"minimum": 0, "maximum": 1},
    ("FeedbackRequest", "reward"): {"minimum": 0, "maximum": 1},
    ("QueryBody", "priority"): {"minimum": 0, "maximum": 8},
    ("BatchQuery", "priority"): {"minimum": 0, "maximum": 8},
    ("Application", "confidence_threshold"): {"minimum": 0, "maximum": 1},
}
PARAMETER_BOUNDS = {
    "page_size": {"minimum": 0, "maximum": 1000},
    "tail": {"minimum": 0, "maximum": 10000},
    "decisions": {"minimum": 0, "maximum": 100},
}

# Natural JSON is read by the frontend itself, for which null is a value like any other; the rest by protocol buffers,
# for which it is an absent member.
WITHOUT_NULL = {"QueryBody", "BatchQuery", "QueryBatchBody", "FeedbackBody", "FeedbackRequest", "FeedbackBatchBody", "Error"}

# Which members of a body the path gives, or the frontend does not take there.
NOT_IN_BODY = {"FeedbackRequest": ["application"]}

def natural(properties: dict) -> dict:
    """Returns the properties with tensors replaced by natural JSON, in the same order."""
    patched = {}
    for name, schema in properties.items():
        if name == "inputs" and "input_json" in properties:
            continue
        if name == "input_json":
            patched["input"] = {"$ref": "#/definitions/Natural", "description": NATURAL["input"]}
        elif name == "outputs" and schema.get("items", {}).get("$ref") == "#/definitions/Tensor":
            patched["output"] = {"$ref": "#/definitions/Natural", "description": NATURAL["output"]}
        elif name == "retry_after":
            patched["retry_after_ms"] = {"type": "integer", "format": "int64", "description": schema["description"] + " In milliseconds."}
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
        "description": "Error says what is wrong: a problem detail of RFC 9457.",
        "properties": {
            "type": {"type": "string", "description": "The reason as a URI, urn:clipper:error:REASON; about:blank when there is none."},
            "title": {"type": "string", "description": "What the reason means, the same for every error of it."},
            "status": {"type": "integer", "format": "int32", "description": "The HTTP status."},
            "detail": properties["message"],
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


def nullable(schema: dict) -> None:
    """Lets a member be null, in place: protocol buffers read that as an absent one."""
    if "$ref" in schema:
        schema["anyOf"] = [{"$ref": schema.pop("$ref")}, {"type": "null"}]
    elif isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]


def reference(schema: dict, null: bool = True) -> None:
    """Turns a schema and those in it, in place, into what OpenAPI 3.1 has; null may be in the place of members."""
    if "$ref" in schema:
        schema["$ref"] = schema["$ref"].replace("#/definitions/", "#/components/schemas/")
        schema.pop("type", None)
    if "example" in schema:
        schema["examples"] = [schema.pop("example")]
    if schema.get("type") == "integer" and schema.get("format") == "int64" and "minimum" not in schema:
        # The generator's form of a uint32; integers of 64 bits are strings.
        schema.update(minimum=0, maximum=2**32 - 1)
    if "properties" in schema:
        schema.setdefault("additionalProperties", False)  # Reading is strict.
    members = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    for member in members:
        if isinstance(member, dict):
            reference(member)
    required = schema.get("required", [])
    for name, member in schema.get("properties", {}).items():
        if null and name not in required:
            nullable(member)


def operation3(operation: dict) -> None:
    """Turns an operation of OpenAPI 2.0, in place, into one of 3.1."""
    parameters = []
    for old in operation.pop("parameters", []):
        if old["in"] == "body":
            reference(old["schema"])
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": old["schema"]}}}
            if "description" in old:
                operation["requestBody"]["description"] = old["description"]
            continue
        keep = {"name", "in", "required", "description"}
        schema = {k: v for k, v in old.items() if k not in keep | {"collectionFormat"}}
        schema.update(PARAMETER_BOUNDS.get(old["name"], {}))
        if old["in"] == "path":
            schema["minLength"] = 1
        reference(schema)
        parameters.append({k: v for k, v in old.items() if k in keep} | {"schema": schema})
    if parameters:
        operation["parameters"] = parameters
    for status, response in operation["responses"].items():
        schema = response.pop("schema")
        reference(schema)
        media = "application/problem+json" if status == "default" else "application/json"
        if "(streaming responses)" in response["description"]:
            media = "application/x-ndjson"
            response["description"] = "One JSON object on each line; the last one has an `error` when the stream failed."
            schema["properties"]["error"] = {"$ref": "#/components/schemas/Error"}
        response["content"] = {media: {"schema": schema}}
    operation["responses"]["default"]["headers"] = {
        "Retry-After": {"description": "With 429 and 503, where it is known: seconds.", "schema": {"type": "integer", "minimum": 0}},
        "Allow": {"description": "With 405: the methods that the path has.", "schema": {"type": "string"}},
    }


def openapi3(spec: dict) -> dict:
    """Returns a description in OpenAPI 2.0 as one in 3.1."""
    definitions = spec["definitions"]
    for name, schema in definitions.items():
        if name in REQUIRED:
            schema["required"] = REQUIRED[name]
        for (owner, member), bounds in MEMBER_BOUNDS.items():
            if owner == name:
                schema["properties"][member].update(bounds)
        reference(schema, null=name not in WITHOUT_NULL)
    for methods in spec["paths"].values():
        for operation in methods.values():
            operation3(operation)
    return {
        "openapi": "3.1.1",
        "info": spec["info"],
        "servers": [{"url": "/", "description": "The listener that this description came from."}],
        # Credentials are looked at where they are configured.
        "security": [{}, {"bearer": []}, {"apiKey": []}],
        "tags": spec["tags"],
        "paths": spec["paths"],
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key or a JWT."},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "An API key."},
            },
        },
    }


def main(path: str, out: str) -> None:
    """Reads OpenAPI 2.0 from a file and writes 3.1 to another."""
    with open(path, encoding="utf-8") as f:
        spec = json.load(f)
    spec["info"] = {
        "title": "Clipper",
        "version": "v1",
        "description": "Queries and feedback are on the query listener (default 127.0.0.1:1337), "
        "administration on the administration listener (default 127.0.0.1:1338).",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    }
    definitions = spec["definitions"]
    for name, definition in definitions.items():
        if "properties" in definition:
            definition["properties"] = natural(definition["properties"])
            for member in NOT_IN_BODY.get(name, []):
                definition["properties"].pop(member)
        if name in EXAMPLES:
            definition["example"] = EXAMPLES[name]
    definitions["Natural"] = NATURAL_SCHEMA
    errors(definitions)
    operations(spec)
    with open(out, "w", encoding="utf-8") as f:
        json.dump(openapi3(spec), f, indent=2)
        f.write("\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
