"""What tests of the Inductor engine do with traced graphs."""

import copy

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sdtrt.engines.backends.inductor import package
from sdtrt.engines.backends.inductor.optimize import DEFAULTS, optimize
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.profiling import launches, provenance
from sdtrt.engines.backends.inductor.trace import Graph, _flatten


def apply(module, graph, ranges=None):
    """Run one pass on a graph of a GPU; how many nodes it changed."""
    return module.apply(graph, Context(torch.device("cuda"), ranges or {})).changed


def rewritten(graph, ranges=None, without=()):
    """(prompt's graph, step's graph, nodes changed by pass) of a GPU, by all default passes but those in `without`.

    cuDNN is left out too: a CPU has none.
    """
    context = Context(torch.device("cuda"), ranges or {})
    passes = [name for name in DEFAULTS if name not in ("cudnn_attention", *without)]
    step, changes = optimize(graph, passes, context)
    return context.prompt, step, {c.name: c.changed for c in changes}


class Flat(torch.nn.Module):
    """A U-Net that returns a tuple."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, sample, timestep, encoder_hidden_states):
        return self.inner(sample, timestep, encoder_hidden_states, return_dict=False)


def traced(module, **inputs):
    """The graph of a module called with these tensors, by the names of its arguments."""
    with torch.no_grad():
        return _flatten(torch.export.export(module, (), kwargs=inputs, strict=False), inputs)


def planned(graph, tensors, path):
    """Compile a graph to `path`: the plan of its launches, and a function without arguments that runs them."""
    given = placed(graph, tensors)
    arguments, priced = package.arguments(graph), launches.priced(graph, given)
    with provenance.commented():
        call = package.compile_to(graph, given, path, {})
    plan = launches.plan_of(provenance.code_of(call), graph, priced, arguments, given, path.stem)
    return plan, lambda: call(*[{**graph.weights, **given}[name] for name in arguments])


def copied(graph):
    """A graph that passes may change."""
    return Graph(copy.deepcopy(graph.module), dict(graph.weights), dict(graph.inputs), dict(graph.sources))


def placed(graph, tensors):
    """By placeholder, those of the tensors that are inputs of the graph."""
    return {place: tensors[name] for name, place in graph.inputs.items() if name in tensors}


def scaled_matmul(a, b, scale_a, scale_b, bias=None, scale_result=None, out_dtype=None, use_fast_accum=False):
    """What `aten._scaled_mm` computes; torch's own takes a thousand times as long on a CPU."""
    made = (a.float() @ b.float()) * (scale_a * scale_b)
    return (made if bias is None else made + bias.float()).to(out_dtype)


class FastMatmuls(TorchDispatchMode):
    """While open, FP8 matmuls are `scaled_matmul`."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = scaled_matmul if func is torch.ops.aten._scaled_mm.default else func
        return found(*args, **(kwargs or {}))


def run(graph, tensors):
    """The outputs for inputs by name."""
    given = {**graph.weights, **placed(graph, tensors)}
    with torch.no_grad(), FastMatmuls():
        return graph.module(*[given[name] for name in package.arguments(graph)])


def error(made, truth):
    """Relative to `truth`."""
    return float((made.float() - truth).norm() / truth.norm())


def heavy(costs):
    """Operations of all matmuls."""
    return sum(n.flops for n in costs.nodes.values() if n.kind in ("conv", "gemm", "attention"))
