# SPDX-License-Identifier: Apache-2.0
"""Serves a model of a server that speaks the Open Inference Protocol (v2) over gRPC: Triton, MLServer, KServe.

OIP_ADDRESS is the server's host:port, OIP_MODEL the model's name there, OIP_VERSION its version (optional).
OIP_TIMEOUT is the time that a batch may take, in seconds, 30 by default.
"""

from os import environ as env

import numpy as np

from clipper_container import serve, spec


class OpenInference:
    expects = "OIP_ADDRESS, the host:port of a server's gRPC, OIP_MODEL, the name of a model there, and OIP_TIMEOUT in seconds"

    def __init__(self):
        from tritonclient import grpc, utils

        self.grpc, self.datatype, self.dtype = grpc, utils.np_to_triton_dtype, utils.triton_to_np_dtype
        self.model = {"model_name": env["OIP_MODEL"], "model_version": env.get("OIP_VERSION", "")}
        # gRPC's own limit would let it wait two minutes before it looks again for a server that was away.
        options = [("grpc.max_reconnect_backoff_ms", 1000), ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.client, self.timeout = grpc.InferenceServerClient(env["OIP_ADDRESS"], channel_args=options), float(env.get("OIP_TIMEOUT", 30))
        try:
            model = self.client.get_model_metadata(**self.model, client_timeout=self.timeout)
        except utils.InferenceServerException as e:  # the server may be away, or still loading: another attempt may succeed
            raise ConnectionError(f"no model {env['OIP_MODEL']!r} at {env['OIP_ADDRESS']}: {e}") from e
        self.inputs, self.outputs = ([spec(self.dtype(t.datatype), t.shape[1:], t.name) for t in s] for s in (model.inputs, model.outputs))

    def predict(self, rows):
        named = rows if isinstance(rows, dict) else {self.inputs[0].name if self.inputs else "input-0": rows}
        arrays = {n: np.stack([np.asarray(row, object) for row in v]) if isinstance(v, list) else v for n, v in named.items()}
        inputs = [self.grpc.InferInput(n, a.shape, self.datatype(a.dtype)).set_data_from_numpy(a) for n, a in arrays.items()]
        result = self.client.infer(**self.model, inputs=inputs, client_timeout=self.timeout)
        # A server answers raw or, as some models of KServe do, in fields by type, which the client does not read.
        fields = [(o, o.contents.ListFields()) for o in result.get_response().outputs]
        return {o.name: np.array(f[0][1], self.dtype(o.datatype)).reshape(o.shape) if f else result.as_numpy(o.name) for o, f in fields}


serve(OpenInference)
