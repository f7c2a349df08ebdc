# SPDX-License-Identifier: Apache-2.0
"""A selection policy in a program of its own: mostly the model with the least mean loss, sometimes another.

python epsilon_greedy.py localhost:7100
"""

import random
import signal
import sys
from concurrent import futures

import grpc
from clipper_proto.v1 import selection_policy_service_pb2 as pb
from clipper_proto.v1 import selection_policy_service_pb2_grpc as rpc

TRIES, LOSSES = range(2)  # Where the statistics of a model are.


def mean_loss(model):
    """Of a model that was never asked 0, so that each is tried."""
    tries = model.statistics[TRIES]
    return model.statistics[LOSSES] / tries if tries > 0 else 0.0


class EpsilonGreedy(rpc.SelectionPolicyServiceServicer):
    """Holds nothing: what was learned comes with each call."""

    def DescribePolicy(self, request, context):
        epsilon = request.parameters.get("epsilon", 0.1)
        if not 0 <= epsilon <= 1:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"epsilon is {epsilon:g}, want 0 to 1")
        return pb.DescribePolicyResponse(statistics=["tries", "losses"])

    def SelectModels(self, request, context):
        epsilon = request.parameters.get("epsilon", 0.1)
        models = request.state.models
        best = min(range(len(models)), key=lambda i: mean_loss(models[i]))
        propensities = [epsilon / len(models)] * len(models)
        propensities[best] += 1 - epsilon
        chosen = random.choices(range(len(models)), propensities)[0]
        return pb.SelectModelsResponse(choices=[pb.PolicyChoice(model=chosen, propensity=min(propensities[chosen], 1))])

    def CombinePredictions(self, request, context):
        # One model at most was asked. When the policy could not be asked whom, all of them were.
        models = request.state.models
        said = [p for p in request.predictions if p.HasField("prediction")]
        if not said:
            return pb.CombinePredictionsResponse()
        best = min(said, key=lambda p: mean_loss(models[p.model]))
        confidence = min(max(1 - mean_loss(models[best.model]), 0), 1)
        return pb.CombinePredictionsResponse(answer=best.prediction, confidence=confidence)

    def ObserveFeedback(self, request, context):
        deltas = [pb.PolicyDeltas() for _ in request.state.models]
        for loss in request.losses:
            if loss.HasField("loss"):
                deltas[loss.choice.model].deltas.extend([1, loss.loss])
        return pb.ObserveFeedbackResponse(models=deltas)


def main(address):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    rpc.add_SelectionPolicyServiceServicer_to_server(EpsilonGreedy(), server)
    server.add_insecure_port(address)
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: server.stop(grace=1))
    server.wait_for_termination()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "localhost:7100")
