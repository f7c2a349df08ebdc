# SPDX-License-Identifier: Apache-2.0
"""KServe's gRPC client, as it is published, with raw and with typed contents."""

import asyncio

import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb


def ask(system, call):
    async def run():
        client = InferenceGRPCClient(url=system.grpc, retries=0)
        try:
            return await call(client)
        finally:
            await client.close()

    return asyncio.run(run())


def request(model, array, datatype, raw):
    tensor = InferInput(name="input-0", shape=list(array.shape), datatype=datatype)
    tensor.set_data_from_numpy(array, binary_data=raw)
    return InferRequest(model_name=model, infer_inputs=[tensor], request_id="mine")


@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
@pytest.mark.parametrize("model", ["total", "sum"])
def test_infer(system, model, raw):
    rows = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32)
    answer = ask(system, lambda client: client.infer(request(model, rows, "FP32", raw)))
    assert answer.id == "mine"
    assert answer.outputs[0].as_numpy().tolist() == [6.0, 15.0]


def test_an_application_says_how_sure_it_is(system):
    answer = ask(system, lambda client: client.infer(request("sum", np.ones((1, 3), dtype=np.float32), "FP32", False)))
    assert answer.parameters["confidence"].string_param == "1"
    assert answer.parameters["is_default"].bool_param is False
    assert answer.parameters["feedback_id"].string_param


def test_health(system):
    async def look(client):
        return await client.is_server_live(), await client.is_server_ready(), await client.is_model_ready("sum"), await client.is_model_ready("nobody")

    assert ask(system, look) == (True, True, True, False)


def test_loading_has_the_name_where_kserve_has_it(system):
    # KServe's client has no call for it, but its stub has.
    import grpc
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    with grpc.insecure_channel(system.admin) as channel:
        stub = GRPCInferenceServiceStub(channel)
        answer = stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="echo"))
        assert (answer.model_name, answer.isLoaded) == ("echo", True)
