# SPDX-License-Identifier: Apache-2.0
"""KServe's REST client, as it is published, with JSON and with binary data."""

import asyncio

import httpx
import numpy as np
import pytest
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


def ask(call):
    async def run():
        client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
        try:
            return await call(client)
        finally:
            await client.close()

    return asyncio.run(run())


def request(model, array, datatype, binary, outputs=None):
    tensor = InferInput(name="input", shape=list(array.shape), datatype=datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[tensor], request_id="mine", request_outputs=outputs)


@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "binary"])
@pytest.mark.parametrize("model", ["total", "sum"])
def test_infer(system, model, binary):
    rows = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32)
    answer = ask(lambda client: client.infer(f"http://{system.http}", request(model, rows, "FP32", binary), model_name=model))
    assert answer.id == "mine" and answer.model_name == model
    assert answer.outputs[0].as_numpy().tolist() == [6.0, 15.0]


def test_binary_data_comes_back(system):
    rows = np.arange(6, dtype=np.float16).reshape(2, 3)
    outputs = [RequestedOutput(name="output", parameters={"binary_data": True})]
    answer = ask(lambda client: client.infer(f"http://{system.http}", request("echo", rows, "FP16", True, outputs), model_name="echo"))
    assert np.array_equal(answer.outputs[0].as_numpy(), rows)


def test_text(system):
    rows = np.array(["four", "größe"], dtype=np.object_)
    for binary in (False, True):
        answer = ask(lambda client: client.infer(f"http://{system.http}", request("lengths", rows, "BYTES", binary), model_name="lengths"))
        assert answer.outputs[0].as_numpy().tolist() == [4, 5]


def test_an_application_says_how_sure_it_is(system):
    answer = ask(lambda client: client.infer(f"http://{system.http}", request("sum", np.ones((1, 3), dtype=np.float32), "FP32", False), model_name="sum"))
    assert answer.parameters["confidence"] == "1" and answer.parameters["is_default"] is False and answer.parameters["feedback_id"]


def test_health(system):
    base = f"http://{system.http}"

    async def look(client):
        return await client.is_server_live(base), await client.is_server_ready(base), await client.is_model_ready(base, "sum")

    assert ask(look) == (True, True, True)


def test_errors_have_a_status(system):
    for model, rows, code in (("nobody", np.ones((1, 3), dtype=np.float32), 404), ("total", np.ones((1, 4), dtype=np.float32), 400)):
        with pytest.raises(httpx.HTTPStatusError) as e:
            ask(lambda client: client.infer(f"http://{system.http}", request(model, rows, "FP32", False), model_name=model))
        assert e.value.response.status_code == code and e.value.response.json()["error"]
