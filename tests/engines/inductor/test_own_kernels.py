"""Launches of hand-written kernels in a plan: they compute what they name, matmuls too."""

import plain_kernels
import pytest
import torch
import traced_graphs
from traced_graphs import planned, traced

from sdtrt.engines.backends.inductor.passes import fp8, layer_norm, self_attention
from sdtrt.engines.backends.inductor.profiling import launches
from sdtrt.engines.backends.inductor.trace import Graph

CODE = """
async_compile = AsyncCompile()

_conv3x3_parts_0 = async_compile.triton('_conv3x3_parts', '''
@triton.jit
def _conv3x3_parts(x, w, scale, scales, parts, BLOCK: tl.constexpr):
    tl.store(parts, tl.load(x))
''', device_str='cuda')

_add_parts_1 = async_compile.triton('_add_parts', '''
@triton.jit
def _add_parts(parts, y, BLOCK: tl.constexpr):
    tl.store(y, tl.load(parts))
''', device_str='cuda')

async_compile.wait(globals())

class Runner:
    def call(self, args):
        x_1, weight_1, scale_1, scales_1 = args
        args.clear()
        with torch.cuda._DeviceGuard(0):
            torch.cuda.set_device(0)
            buf0 = empty_strided_cuda((2, 162, 64), (10368, 64, 1), torch.float16)
            # Unsorted Source Nodes: [conv3x3], Original ATen: []
            stream0 = get_raw_stream(0)
            _conv3x3_parts_0.run(x_1, weight_1, scale_1, scales_1, buf0, 3, stream=stream0)
            buf1 = empty_strided_cuda((2, 64, 8, 8), (4096, 1, 512, 64), torch.float16)
            # Unsorted Source Nodes: [conv3x3], Original ATen: []
            stream0 = get_raw_stream(0)
            _add_parts_1.run(buf0, buf1, 3, stream=stream0)
        return (buf1, )
"""


@pytest.fixture
def plan(monkeypatch):
    plain_kernels.install(monkeypatch)
    given = {
        "x": torch.zeros(2, 64, 9, 9, dtype=torch.uint8).contiguous(memory_format=torch.channels_last),
        "weight": torch.zeros(64, 576).to(torch.float8_e4m3fn),
        "scale": torch.tensor(1.0),
        "scales": torch.ones(64),
    }
    nodes = torch.fx.Graph()
    places = [nodes.placeholder(name) for name in given]
    made = nodes.call_function(torch.ops.sdtrt.conv3x3.default, (*places, None, torch.float16))
    made.name = "conv3x3"
    nodes.output((made,))
    weights = {n: t for n, t in given.items() if n != "x"}
    graph = Graph(torch.fx.GraphModule(torch.nn.Module(), nodes), weights, {"x": "x"})
    inputs = {"x": given["x"]}
    return launches.plan_of(CODE, graph, launches.priced(graph, inputs), list(given), inputs, "unet")


def test_the_first_launch_of_a_matmul_computes_it(plan):
    product, rest = plan.layers
    assert (product.kernel, product.kind, product.op) == ("_conv3x3_parts", "conv", "Conv")
    assert product.flops == plan.total_flops == 2 * 64 * 8 * 8 * 2 * 576
    assert product.weight_bytes >= 64 * 576
    assert (rest.kernel, rest.kind, rest.flops) == ("_add_parts", "pointwise", 0)


def test_bits_that_a_hand_written_kernel_reads_are_fp8(plan):
    product, _ = plan.layers
    assert product.precision == "float8_e4m3fn"
    assert [(t.name, t.dtype) for t in product.inputs] == [("x", "float8_e4m3fn")]


def test_both_name_the_node(plan):
    assert {layer.nodes for layer in plan.layers} == {("conv3x3",)}


class Normed(torch.nn.Module):
    """A norm that a Triton kernel computes and quantizes, and a layer after it in FP8."""

    def __init__(self):
        super().__init__()
        self.norm, self.layer = torch.nn.LayerNorm(64), torch.nn.Linear(64, 96)

    def forward(self, x):
        return self.layer(self.norm(x))


@pytest.mark.usefixtures("one_thread")
def test_a_matmul_of_bits_reads_them_and_its_transposed_weight(monkeypatch, tmp_path):
    plain_kernels.install(monkeypatch)
    x = torch.randn(128, 64).half()
    graph = traced(Normed().half(), x=x)
    assert traced_graphs.apply(layer_norm, graph) == traced_graphs.apply(fp8, graph, {"layer": 4.0}) == 1
    plan, _ = planned(graph, {"x": x}, tmp_path / "normed.inductor")
    norm, product = plan.layers
    assert [t.name for t in product.inputs] == [norm.outputs[-1].name]
    assert product.precision == "float8_e4m3fn"
    assert product.weight_bytes == 64 * 96 + 2 * 96 + 4 + 4  # the matrix, its bias, and the two scales
    assert product.bytes_moved == product.weight_bytes + 128 * 64 + 2 * 128 * 96
    assert plan.total_weight_bytes == sum(layer.weight_bytes for layer in plan.layers)


class Attending(torch.nn.Module):
    """Pixels to each other, two heads of 64."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(128, 384, bias=False)

    def forward(self, x):
        parts = (p.view(len(x), -1, 2, 64).transpose(1, 2) for p in self.layer(x).split_with_sizes([128] * 3, -1))
        return torch.nn.functional.scaled_dot_product_attention(*parts)


@pytest.mark.parametrize(("pixels", "applied"), [(64, 1), (80, 1), (72, 0), (48, 0)])
def test_attention_in_fp8_is_for_pixels_that_threads_copy_16_at_once(pixels, applied, monkeypatch):
    """Of two images: 144 pixels in all are a multiple of 16, but the second image does not begin at one."""
    plain_kernels.install_as_on_hopper(monkeypatch)
    graph = traced(Attending().half(), x=torch.randn(2, pixels, 128).half())
    assert traced_graphs.apply(self_attention, graph, {"layer": 4.0}) == applied


def test_an_attention_that_nothing_reads_any_more_is_not_priced():
    """Because of its dropout torch takes it for more than its result, and keeps it."""
    nodes = torch.fx.Graph()
    x = nodes.placeholder("x")
    attention = torch.ops.aten._scaled_dot_product_cudnn_attention.default
    nodes.call_function(attention, (x, x, x, None, False))
    nodes.output((nodes.call_function(torch.ops.aten.neg.default, (x,)),))
    graph = Graph(torch.fx.GraphModule(torch.nn.Module(), nodes), {}, {"x": "x"})
    graph.finish()
    assert not graph.nodes.find_nodes(op="call_function", target=attention)
    assert len(graph.nodes.find_nodes(op="call_function", target=torch.ops.aten.neg.default)) == 1
