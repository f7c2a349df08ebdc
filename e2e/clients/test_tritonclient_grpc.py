# SPDX-License-Identifier: Apache-2.0
"""tritonclient over gRPC, as it is published: sync, asyncio and streams."""

import asyncio
import json
import queue

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

NUMERIC = [np.bool_, np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int32, np.int64, np.float16, np.float32, np.float64]


@pytest.fixture(scope="module")
def client(system):
    with triton.InferenceServerClient(system.grpc) as client:
        yield client


def tensor(array, name="input"):
    t = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    t.set_data_from_numpy(array)
    return t


def parameter(response, name):
    p = response.get_response().parameters[name]
    return getattr(p, p.WhichOneof("parameter_choice"))


def test_the_server_describes_itself(client):
    assert client.is_server_live() and client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata.name == "clipper" and metadata.version
    assert {"model_configuration", "statistics"} <= set(metadata.extensions)


@pytest.mark.parametrize("dtype", NUMERIC, ids=lambda d: np.dtype(d).name)
def test_every_numeric_type_goes_there_and_back(client, dtype):
    sent = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    answer = client.infer("echo", [tensor(sent)])
    got = answer.as_numpy("output")
    assert got.dtype == sent.dtype and got.shape == sent.shape
    assert np.array_equal(got, sent)


def test_bytes_go_there_and_back(client):
    sent = np.array([[b"one", b""], [b"\xff\x00", b"four"]], dtype=np.object_)
    got = client.infer("echo", [tensor(sent)]).as_numpy("output")
    assert got.shape == (2, 2) and got.tolist() == sent.tolist()


def test_a_model_answers_itself(client):
    answer = client.infer("total", [tensor(np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32))], model_version="1", request_id="mine")
    assert answer.as_numpy("output").tolist() == [6.0, 15.0]
    response = answer.get_response()
    assert (response.id, response.model_name, response.model_version) == ("mine", "total", "1")


def test_a_query_without_a_batch_dimension(client):
    assert client.infer("total", [tensor(np.array([1, 2, 3], dtype=np.float32))]).as_numpy("output").tolist() == [6.0]


def test_an_application_answers_as_a_model(client):
    row = np.array([[1, 2, 3]], dtype=np.float32)
    answer = client.infer("sum", [tensor(row)], outputs=[triton.InferRequestedOutput("output")])
    assert answer.as_numpy("output").tolist() == [6.0]
    assert float(parameter(answer, "confidence")) == 1.0
    assert parameter(answer, "is_default") is False
    assert parameter(answer, "feedback_id")

    answer = client.infer("sum", [tensor(np.repeat(row, 3, axis=0))], parameters={"context": "me"}, priority=1, timeout=5_000_000)
    assert answer.as_numpy("output").tolist() == [6.0, 6.0, 6.0]
    assert len(set(json.loads(parameter(answer, "feedback_id")))) == 3


def test_an_application_that_cannot_answer_gives_its_default(client):
    answer = client.infer("sum", [tensor(np.array([[-1, -2, -3]], dtype=np.float32))])
    assert answer.as_numpy("output").tolist() == [-1.0]
    assert parameter(answer, "is_default") is True
    assert parameter(answer, "default_reason") == "MODELS_FAILED"


def test_scores_are_a_list_for_each_row(client):
    sent = np.array([[0.25, 0.75], [1, 0]])
    assert np.array_equal(client.infer("score", [tensor(sent)]).as_numpy("output"), sent)


def test_text(client):
    for shape in ([2], [2, 1]):
        sent = np.array(["four", "größe"], dtype=np.object_).reshape(shape)
        assert client.infer("lengths", [tensor(sent)]).as_numpy("output").tolist() == [4, 5]


def test_metadata_and_configuration_are_what_perf_analyzer_reads(client):
    for name in ("total", "sum"):
        assert client.is_model_ready(name)
        metadata = client.get_model_metadata(name)
        assert metadata.versions == ["1"]
        assert (metadata.inputs[0].name, metadata.inputs[0].datatype, list(metadata.inputs[0].shape)) == ("input", "FP32", [-1, 3])
        assert (metadata.outputs[0].name, metadata.outputs[0].datatype, list(metadata.outputs[0].shape)) == ("output", "FP32", [-1])
        config = client.get_model_config(name, as_json=True)["config"]
        assert config["max_batch_size"] > 1
        assert not config["model_transaction_policy"].get("decoupled")
        assert config["input"][0]["data_type"] == "TYPE_FP32" and config["input"][0]["dims"] == ["3"]
        assert config["output"][0]["name"] == "output"
        assert "dynamic_batching" in config


def test_statistics_count(client):
    def success():
        (stats,) = client.get_inference_statistics("total").model_stats
        of = stats.inference_stats
        return stats.inference_count, of.success.count, of.fail.count, of.success.ns, of.compute_infer.ns, of.queue.ns, stats.execution_count

    before = success()
    client.infer("total", [tensor(np.random.default_rng().random((4, 3), dtype=np.float32))])
    with pytest.raises(InferenceServerException):
        client.infer("total", [tensor(np.ones((4, 5), dtype=np.float32))])
    after = success()
    assert [a - b for a, b in zip(after[:3], before[:3])] == [4, 1, 1]
    assert all(a > b for a, b in zip(after[3:], before[3:]))


def test_errors_have_a_status_and_say_what_is_wrong(client):
    cases = [
        (("nobody", np.ones((1, 3), dtype=np.float32)), {}, "NOT_FOUND", "nobody"),
        (("total", np.ones((1, 3), dtype=np.float32)), {"model_version": "9"}, "NOT_FOUND", "9"),
        (("total", np.ones((1, 4), dtype=np.float32)), {}, "INVALID_ARGUMENT", "[-1 3]"),
        (("total", np.ones((1, 3), dtype=np.float64)), {}, "INVALID_ARGUMENT", "FP32"),
        (("total", -np.ones((1, 3), dtype=np.float32)), {}, "UNKNOWN", "below zero"),
    ]
    for (model, array), more, code, text in cases:
        with pytest.raises(InferenceServerException) as e:
            client.infer(model, [tensor(array)], **more)
        assert e.value.status() == f"StatusCode.{code}" and text in e.value.message()


def test_the_repository(client, system):
    index = {(m.name, m.version): m.state for m in client.get_model_repository_index().models}
    assert index[("total", "1")] == "READY" and index[("sum", "1")] == "READY"
    with pytest.raises(InferenceServerException, match="administration"):
        client.unload_model("lengths")
    with triton.InferenceServerClient(system.admin) as admin:
        admin.unload_model("lengths")
        assert not admin.is_model_ready("lengths")
        admin.load_model("lengths")
        assert admin.is_model_ready("lengths")
    test_text(client)


def test_a_stream_answers_in_order_and_goes_on_after_an_error(client):
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for i in range(20):
        bad = i == 7
        client.async_stream_infer("total", [tensor(np.full((1, 4 if bad else 3), i, dtype=np.float32))], request_id=str(i), enable_empty_final_response=i == 3)
    for i in range(20):
        result, error = answers.get(timeout=30)
        if i == 7:
            assert "[-1 3]" in error.message()
            continue
        assert error is None and result.get_response().id == str(i)
        assert result.as_numpy("output").tolist() == [3.0 * i]
        assert ("triton_final_response" in result.get_response().parameters) == (i == 3)
    client.stop_stream()


def test_asyncio(system):
    async def run():
        async with triton_aio.InferenceServerClient(system.grpc) as client:
            assert await client.is_server_live() and await client.is_model_ready("sum")
            rows = [np.full((2, 3), i, dtype=np.float32) for i in range(8)]
            answers = await asyncio.gather(*(client.infer("sum", [tensor(r)]) for r in rows))
            assert [a.as_numpy("output").tolist() for a in answers] == [[3.0 * i] * 2 for i in range(8)]

            async def requests():
                for r in rows:
                    yield {"model_name": "total", "inputs": [tensor(r)]}

            streamed = [result.as_numpy("output").tolist() async for result, error in client.stream_infer(requests()) if error is None]
            assert streamed == [[3.0 * i] * 2 for i in range(8)]

    asyncio.run(run())


def test_compression(client):
    rows = [tensor(np.ones((64, 3), dtype=np.float32))]
    assert client.infer("total", rows, compression_algorithm="gzip", client_timeout=30).as_numpy("output").tolist() == [3.0] * 64
    with pytest.raises(InferenceServerException) as e:
        client.infer("total", rows, compression_algorithm="deflate")
    assert e.value.status() == "StatusCode.UNIMPLEMENTED"
