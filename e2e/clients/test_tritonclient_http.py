# SPDX-License-Identifier: Apache-2.0
"""tritonclient over HTTP, as it is published: sync and asyncio, binary and JSON, compressed and not."""

import asyncio
import json
import urllib.request

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

NUMERIC = [np.bool_, np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int32, np.int64, np.float16, np.float32, np.float64]


@pytest.fixture(scope="module")
def client(system):
    with triton.InferenceServerClient(system.http) as client:
        yield client


@pytest.fixture(scope="module")
def admin(system):
    with triton.InferenceServerClient(system.admin_http) as client:
        yield client


def tensor(array, binary=True, name="input"):
    t = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    t.set_data_from_numpy(array, binary_data=binary)
    return t


def output(binary=True, name="output"):
    return triton.InferRequestedOutput(name, binary_data=binary)


def test_the_server_describes_itself(client):
    assert client.is_server_live() and client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata["name"] == "clipper" and metadata["version"]
    assert {"binary_tensor_data", "model_configuration", "statistics"} <= set(metadata["extensions"])


@pytest.mark.parametrize("binary_out", [True, False], ids=["binary out", "JSON out"])
@pytest.mark.parametrize("binary_in", [True, False], ids=["binary in", "JSON in"])
@pytest.mark.parametrize("dtype", NUMERIC, ids=lambda d: np.dtype(d).name)
def test_every_numeric_type_goes_there_and_back(client, dtype, binary_in, binary_out):
    if dtype == np.float16 and not binary_in:
        pytest.skip("the client sends float16 as binary data only")
    sent = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    got = client.infer("echo", [tensor(sent, binary_in)], outputs=[output(binary_out)]).as_numpy("output")
    assert got.dtype == sent.dtype and got.shape == sent.shape
    assert np.array_equal(got, sent)


def test_no_number_loses_anything_on_the_way_as_json(client):
    for sent in (
        np.array([[np.iinfo(np.int64).min, np.iinfo(np.int64).max]]),
        np.array([[np.iinfo(np.uint64).max]], dtype=np.uint64),
        np.array([[0.1, 1e-45, 3.4028235e38]], dtype=np.float32),
        np.array([[0.1, 5e-324, 1.7976931348623157e308]]),
    ):
        got = client.infer("echo", [tensor(sent, False)], outputs=[output(False)]).as_numpy("output")
        assert np.array_equal(got, sent), sent


@pytest.mark.parametrize("binary_out", [True, False], ids=["binary out", "JSON out"])
@pytest.mark.parametrize("binary_in", [True, False], ids=["binary in", "JSON in"])
def test_text_goes_there_and_back(client, binary_in, binary_out):
    sent = np.array([["one", ""], ["größe", '"']], dtype=np.object_)
    got = client.infer("echo", [tensor(sent, binary_in)], outputs=[output(binary_out)]).as_numpy("output")
    assert [e.decode() if isinstance(e, bytes) else e for e in got.flatten()] == sent.flatten().tolist()


def test_bytes_that_are_no_text_need_binary_data(client):
    sent = np.array([[b"\xff\x00"]], dtype=np.object_)
    assert client.infer("echo", [tensor(sent)]).as_numpy("output").tolist() == sent.tolist()
    with pytest.raises(InferenceServerException, match="binary_data"):
        client.infer("echo", [tensor(sent)], outputs=[output(False)])


@pytest.mark.parametrize("there", [None, "gzip", "deflate"])
@pytest.mark.parametrize("back", [None, "gzip", "deflate"])
def test_compression(client, there, back):
    sent = np.arange(3000, dtype=np.float32).reshape(1, 3000)
    for binary in (True, False):
        answer = client.infer(
            "echo", [tensor(sent, binary)], outputs=[output(binary)], request_compression_algorithm=there, response_compression_algorithm=back
        )
        assert np.array_equal(answer.as_numpy("output"), sent)


def test_a_model_answers_itself(client):
    rows = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32)
    answer = client.infer("total", [tensor(rows)], model_version="1", request_id="mine")
    assert answer.as_numpy("output").tolist() == [6.0, 15.0]
    response = answer.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("mine", "total", "1")


def test_an_application_answers_as_a_model(client):
    row = np.array([[1, 2, 3]], dtype=np.float32)
    answer = client.infer("sum", [tensor(row)], outputs=[output(False)], parameters={"context": "me"}, priority=1, timeout=5_000_000)
    assert answer.as_numpy("output").tolist() == [6.0]
    parameters = answer.get_response()["parameters"]
    assert float(parameters["confidence"]) == 1.0 and parameters["is_default"] is False and parameters["feedback_id"]

    answer = client.infer("sum", [tensor(np.repeat(row, 3, axis=0))])
    assert answer.as_numpy("output").tolist() == [6.0, 6.0, 6.0]
    assert len(set(json.loads(answer.get_response()["parameters"]["feedback_id"]))) == 3


def test_the_deadline_of_a_request(client):
    row = np.array([[7, 7, 7]], dtype=np.float32)
    answer = client.infer("sum", [tensor(row)], timeout=1)  # One microsecond: nobody can answer.
    assert answer.get_response()["parameters"]["is_default"] is True


def test_metadata_configuration_and_statistics(client):
    for name in ("total", "sum"):
        assert client.is_model_ready(name) and client.is_model_ready(name, "1")
        metadata = client.get_model_metadata(name)
        assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 3]}]
        assert metadata["outputs"] == [{"name": "output", "datatype": "FP32", "shape": [-1]}]
        config = client.get_model_config(name, "1")
        assert config["max_batch_size"] > 1
        assert config["input"][0]["data_type"] == "TYPE_FP32" and config["input"][0]["dims"] == [3]
        (stats,) = client.get_inference_statistics(name)["model_stats"]
        assert isinstance(stats["inference_count"], int) and isinstance(stats["inference_stats"]["success"]["ns"], int)
    assert not client.is_model_ready("nobody")
    assert {m["name"] for m in client.get_inference_statistics()["model_stats"]} >= {"total", "sum"}


def test_the_repository(client, admin):
    index = {(m["name"], m["version"]): m["state"] for m in client.get_model_repository_index()}
    assert index["total", "1"] == "READY" and index["sum", "1"] == "READY"
    admin.load_model("echo")
    assert client.is_model_ready("echo")
    with pytest.raises(InferenceServerException, match="administration"):  # Not for those who only ask.
        client.load_model("echo")
    with pytest.raises(InferenceServerException, match="nobody"):
        admin.load_model("nobody")


def test_a_body_that_is_the_input(system):
    request = urllib.request.Request(
        f"http://{system.http}/v2/models/total/infer", np.array([1, 2, 3], dtype="<f4").tobytes(), {"Inference-Header-Content-Length": "0"}
    )
    with urllib.request.urlopen(request) as response:
        body = response.read()
        length = int(response.headers["Inference-Header-Content-Length"])
    assert json.loads(body[:length])["outputs"][0]["parameters"] == {"binary_data_size": 4}
    assert np.frombuffer(body[length:], dtype="<f4").tolist() == [6.0]


def test_errors_have_a_status_and_say_what_is_wrong(client):
    cases = [
        (("nobody", np.ones((1, 3), dtype=np.float32)), {}, "404", "nobody"),
        (("no/body ü", np.ones((1, 3), dtype=np.float32)), {}, "404", "no/body ü"),
        (("total", np.ones((1, 3), dtype=np.float32)), {"model_version": "9"}, "404", "9"),
        (("total", np.ones((1, 4), dtype=np.float32)), {}, "400", "[-1 3]"),
        (("total", np.ones((1, 3), dtype=np.float64)), {}, "400", "FP32"),
        (("total", -np.ones((1, 3), dtype=np.float32)), {}, "500", "below zero"),
        (("total", np.ones((1, 3), dtype=np.float32)), {"outputs": [output(name="other")]}, "400", "other"),
    ]
    for (model, array), more, code, text in cases:
        with pytest.raises(InferenceServerException) as e:
            client.infer(model, [tensor(array)], **more)
        assert e.value.status() == code, e.value
        assert text in e.value.message()


def test_what_is_not_served_says_so(client):
    with pytest.raises(InferenceServerException, match="nothing at") as e:
        client.get_system_shared_memory_status()
    assert e.value.status() == "404"
    with pytest.raises(InferenceServerException, match="nothing at"):
        client.get_trace_settings()


def test_asyncio(system):
    async def run():
        async with triton_aio.InferenceServerClient(system.http) as client:
            assert await client.is_server_live() and await client.is_model_ready("total")
            rows = [np.full((1, 3), i, dtype=np.float32) for i in range(20)]
            answers = await asyncio.gather(*(client.infer("total", [tensor(row, i % 2 == 0)]) for i, row in enumerate(rows)))
            assert [a.as_numpy("output").tolist() for a in answers] == [[3.0 * i] for i in range(20)]
            large = np.arange(3000, dtype=np.float32).reshape(1, 3000)
            for algorithm in (None, "gzip", "deflate"):
                answer = await client.infer(
                    "echo", [tensor(large)], request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
                )
                assert np.array_equal(answer.as_numpy("output"), large)
            with pytest.raises(InferenceServerException, match="nobody"):
                await client.infer("nobody", [tensor(rows[0])])

    asyncio.run(run())
