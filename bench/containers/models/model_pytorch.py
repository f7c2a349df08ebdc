# SPDX-License-Identifier: Apache-2.0
"""A network of three wide layers in PyTorch, exported."""

import bare
import torch
from network import rows, weights

torch.set_num_threads(1)


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ParameterList([torch.nn.Parameter(torch.from_numpy(w)) for w in weights])

    def forward(self, x):
        for w in self.layers:
            x = torch.tanh(x @ w)
        return x


path = bare.folder() / "model.pt2"
torch.export.save(torch.export.export(Network(), (torch.zeros(2, rows.shape[1]),), dynamic_shapes=({0: torch.export.Dim("batch")},)), path)
network = torch.export.load(path).module()


def predict(batch):
    with torch.inference_mode():
        return network(torch.from_numpy(batch)).numpy()


bare.answer(path, rows, predict)
