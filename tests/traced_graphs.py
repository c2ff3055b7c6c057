"""What tests of the Inductor engine do with traced graphs."""

import copy

import torch

from sdtrt.engines._inductor import package
from sdtrt.engines._inductor.capture import Graph


class Flat(torch.nn.Module):
    """A U-Net that returns a tuple."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, sample, timestep, encoder_hidden_states):
        return self.inner(sample, timestep, encoder_hidden_states, return_dict=False)


def copied(graph):
    """A graph that passes may change."""
    return Graph(copy.deepcopy(graph.module), dict(graph.weights), dict(graph.inputs), dict(graph.sources))


def placed(graph, tensors):
    """By placeholder, those of the tensors that are inputs of the graph."""
    return {place: tensors[name] for name, place in graph.inputs.items() if name in tensors}


def run(graph, tensors):
    """The outputs for inputs by name."""
    given = {**graph.weights, **placed(graph, tensors)}
    with torch.no_grad():
        return graph.module(*[given[name] for name in package.arguments(graph)])


def error(made, truth):
    """Relative to `truth`."""
    return float((made.float() - truth).norm() / truth.norm())


def heavy(costs):
    """Operations of all products."""
    return sum(n.flops for n in costs.nodes.values() if n.kind in ("conv", "gemm", "attention"))
