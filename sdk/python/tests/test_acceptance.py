# SPDX-License-Identifier: Apache-2.0
"""The list of sdk/acceptance against a real server, for both clients. CLIPPER_ACCEPTANCE_SERVER names the program."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
from typing import Any

import grpc
import numpy as np
import pytest
from clipper_proto.v1 import application_service_pb2 as application_pb2
from clipper_proto.v1 import tensor_pb2
from google.protobuf import json_format

import clipper

PROGRAM = os.environ["CLIPPER_ACCEPTANCE_SERVER"]
CASES = json.loads(subprocess.check_output([PROGRAM, "--list"]))["cases"]


class Threads:
    """Calls of the client for threads."""

    Client = clipper.Client

    def run(self, result):
        return result

    def collect(self, items):
        return list(items)

    def close(self):
        pass


class Asyncio:
    """Calls of the client for asyncio."""

    Client = clipper.AsyncClient

    def __init__(self):
        self.loop = asyncio.new_event_loop()

    def run(self, result):
        return self.loop.run_until_complete(result)

    def collect(self, items):
        async def all_of_them():
            return [item async for item in items]

        return self.run(all_of_them())

    def close(self):
        self.loop.close()


@pytest.fixture(scope="module", params=[Threads, Asyncio], ids=["threads", "asyncio"])
def runner(request):
    with subprocess.Popen([PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        runner = Runner(request.param(), json.loads(server.stdout.readline()))
        yield runner
        runner.close()
        server.stdin.close()
        assert server.wait(60) == 0


@pytest.mark.parametrize("case", CASES, ids=[c["name"] for c in CASES])
def test_case(runner, case):
    runner.test(case)


def test_an_iterator_that_fails_ends_its_stream(runner):
    def queries():
        yield clipper.Query([1, 0])
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        runner.way.collect(runner.clients["clipper"].query_stream(queries(), application="label"))


def test_an_endless_stream_may_be_left(runner):
    asked = []

    def queries():
        while len(asked) < 1000:
            asked.append(clipper.Query([len(asked), 0]))
            yield asked[-1]

    answers = runner.clients["clipper"].query_stream(queries(), application="label")
    query, answer = next(answers) if isinstance(runner.way, Threads) else runner.way.run(answers.__anext__())
    assert answer.output == query.input[0]
    runner.way.run(answers.close() if isinstance(runner.way, Threads) else answers.aclose())


class Runner:
    def __init__(self, way, at):
        self.way = way
        self.saved = {"container": at["container"]}
        secure = {"ca_file": at["ca_file"], "cert_file": at["cert_file"], "key_file": at["key_file"]}
        self.clients = way.run(
            self.connect(
                clipper=dict(address=at["query_grpc"], admin_address=at["admin_grpc"]),
                canned=dict(address=at["canned_grpc"]),
                secure=dict(address=at["secure_grpc"], api_key=at["api_key"], **secure),
                keyless=dict(address=at["secure_grpc"], **secure),
            )
        )

    def connect(self, **servers):
        def clients():
            return {name: self.way.Client(**options) for name, options in servers.items()}

        async def in_the_loop():
            return clients()

        return clients() if isinstance(self.way, Threads) else in_the_loop()

    def close(self):
        for client in self.clients.values():
            self.way.run(client.close())
        self.way.close()

    def test(self, case):
        client = self.clients[case.get("server", "clipper")]
        request = self.fill(case["request"])
        call = getattr(self, case["call"])
        if "error" in case:
            with pytest.raises(clipper.ClipperError) as raised:
                call(client, request)
            expect({"error": error_object(raised.value)}, {"error": case["error"]})
            return
        answer = call(client, request)
        expect(answer, self.fill(case["expect"]))
        for name, path in case.get("save", {}).items():
            value = answer
            for key in path.split("."):
                value = value[key]
            self.saved[name] = value

    def fill(self, value: Any) -> Any:
        """Replaces each "$name" by what was saved."""
        if isinstance(value, str) and value.startswith("$"):
            return self.saved.get(value[1:], value)
        if isinstance(value, list):
            return [self.fill(v) for v in value]
        if isinstance(value, dict):
            return {k: self.fill(v) for k, v in value.items()}
        return value

    # The calls, as a program makes them.

    def query(self, client, r):
        options = {k: r[k] for k in ("context", "id", "priority") if k in r}
        if "timeout_ms" in r:
            options["timeout"] = r["timeout_ms"] / 1000
        if "input_json" in r and not is_json(r["input_json"]):
            return self.raw_query(client, r)
        return answer_object(self.way.run(client.query(r["application"], input_of(r), **options)))

    def raw_query(self, client, r):
        """What no value of Python is written as."""
        from clipper_proto.v1 import query_service_pb2

        request = query_service_pb2.QueryRequest(application=r["application"], input_json=r["input_json"].encode())
        return self.way.run(client.call(client.queries, "Query", request))

    def query_batch(self, client, r):
        results = self.way.run(client.query_batch(r["application"], [query_of(q) for q in r["queries"]]))
        return {"results": [result_object(x, answer_object) for x in results]}

    def query_stream(self, client, r):
        queries = [query_of(q) for q in r["queries"]]
        results: list[Any] = [None] * len(queries)
        for query, result in self.way.collect(client.query_stream(queries)):
            (i,) = [i for i, q in enumerate(queries) if q is query]
            results[i] = result_object(result, answer_object)
        return {"results": results}

    def feedback(self, client, r):
        options = {k: r[k] for k in ("feedback_id", "truth", "reward", "context", "id") if k in r}
        return message_object(self.way.run(client.feedback(r["application"], input=input_of(r), **options)))

    def feedback_batch(self, client, r):
        results = self.way.run(client.feedback_batch(r["application"], [clipper.Feedback(**item) for item in r["items"]]))
        return {"results": [result_object(x, message_object) for x in results]}

    def create_application(self, client, r):
        return {"application": message_object(self.way.run(client.create_application(r["application"])))}

    def get_application(self, client, r):
        return {"application": message_object(self.way.run(client.get_application(r["application"])))}

    def list_applications(self, client, r):
        return {"applications": [message_object(a) for a in self.way.collect(client.list_applications(**r))]}

    def update_application(self, client, r):
        application = r.pop("application")
        return {"application": message_object(self.way.run(client.update_application(application, **r)))}

    def delete_application(self, client, r):
        self.way.run(client.delete_application(r["application"], etag=r.get("etag", "")))
        return {}

    def get_selection_state(self, client, r):
        return message_object(self.way.run(client.get_selection_state(**r)))

    def reset_selection_state(self, client, r):
        self.way.run(client.reset_selection_state(**r))
        return {}

    def get_canary(self, client, r):
        return message_object(self.way.run(client.call(client.applications, "GetCanary", application_pb2.GetCanaryRequest(**r))))

    def deploy_model(self, client, r):
        return {"version": message_object(self.way.run(client.deploy_model(r.pop("version"), **r)))}

    def wait_model_ready(self, client, r):
        return {"version": message_object(self.way.run(client.wait_model_ready(**r)))}

    def get_model(self, client, r):
        return {"model": message_object(self.way.run(client.get_model(**r)))}

    def list_models(self, client, r):
        return {"models": [message_object(m) for m in self.way.collect(client.list_models(**r))]}

    def get_model_version(self, client, r):
        return {"version": message_object(self.way.run(client.get_model_version(**r)))}

    def update_model_version(self, client, r):
        return {"version": message_object(self.way.run(client.scale_model(**r)))}

    def set_current_version(self, client, r):
        return {"model": message_object(self.way.run(client.set_current_version(**r)))}

    def delete_model_version(self, client, r):
        self.way.run(client.delete_model_version(**r))
        return {}

    def delete_model(self, client, r):
        self.way.run(client.delete_model(**r))
        return {}


def is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def query_of(r):
    options = {k: r[k] for k in ("application", "context", "id", "priority") if k in r}
    return clipper.Query(input_of(r), **options)


def input_of(r):
    """Arrays of numpy for tensors, and plain Python for JSON."""
    if "input_json" in r:
        return json.loads(r["input_json"])
    if "inputs" not in r:
        return None
    arrays = {t.get("name", ""): array_of(t) for t in r["inputs"]}
    return arrays[""] if list(arrays) == [""] else arrays


def array_of(t):
    shape, values = t["shape"], t["values"]
    if t["type"] in ("string", "bytes"):
        array = np.empty(len(values), dtype=object)
        array[:] = [base64.b64decode(v) for v in values] if t["type"] == "bytes" else values
        return array.reshape(shape)
    if t["type"] == "bfloat16":
        return clipper.bfloat16(np.reshape(values, shape))
    if t["type"].startswith("float"):
        values = [float(v) for v in values]
    elif t["type"] != "bool":
        values = [int(v) for v in values]
    return np.array(values, dtype=t["type"]).reshape(shape)


def tensor_object(tensor):
    kind = tensor_pb2.DataType.Name(tensor.data_type)[len("DATA_TYPE_") :].lower()
    array = clipper.to_numpy(tensor)
    values = [base64.b64encode(v).decode() if isinstance(v, bytes) else v for v in array.ravel().tolist()]
    values = [str(v) if isinstance(v, int) and abs(v) > 2**53 else v for v in values]
    return {"name": tensor.name, "type": kind, "shape": list(array.shape), "values": values}


def answer_object(a):
    message = a.message
    return {
        "outputs": [tensor_object(t) for t in message.outputs],
        "is_default": a.is_default,
        "default_reason": a.default_reason,
        "confidence": a.confidence,
        "feedback_id": a.feedback_id,
        "id": a.id,
        "predictions": [
            {
                "model": p.model,
                "version": p.version,
                "status": p.status,
                "outputs": [tensor_object(t) for t in p.message.outputs],
                "message": p.message.message,
                "cached": p.message.cached,
                "propensity": p.message.propensity,
                "shadow": p.message.shadow,
            }
            for p in a.predictions
        ],
    }


def result_object(result, to_object):
    return {"error": error_object(result)} if isinstance(result, clipper.ClipperError) else to_object(result)


def error_object(e):
    assert isinstance(e.code, grpc.StatusCode)
    return {
        "code": e.code.name,
        "reason": e.reason,
        "field": e.field,
        "message": e.message,
        "retry_after_ms": 1000 * e.retry_after if e.retry_after is not None else None,
    }


def message_object(message):
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def expect(have, want):
    for key, value in want.items():
        problem = mismatch(key, have.get(key), value)
        assert not problem, f"{problem}\nin {have}"


def mismatch(path, have, want):
    """Returns how what is there does not match what is wanted, or None."""
    if isinstance(want, dict):
        pairs = [(f"{path}.{k}", (have or {}).get(k), v) for k, v in want.items() if k not in ("http", "rest_field")]
    elif isinstance(want, list) and want[:1] == ["$includes"]:
        missing = [w for w in want[1:] if all(mismatch(path, h, w) for h in have or [])]
        return f"{path}: nothing is {missing}" if missing else None
    elif isinstance(want, list):
        if len(have or []) != len(want):
            return f"{path}: {have} has not as many elements as {want}"
        pairs = [(f"{path}[{i}]", h, w) for i, (h, w) in enumerate(zip(have or [], want))]
    elif want == "$any":
        return f"{path}: is empty" if not have else None
    elif (not have and not want) or (have == want and type(have) in (type(want), int, float)):
        return None
    else:
        return f"{path}: {have!r}, want {want!r}"
    return next((problem for problem in (mismatch(*p) for p in pairs) if problem), None)
