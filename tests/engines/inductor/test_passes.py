"""The graph passes of a GPU, run on a CPU: the rewritten U-Net computes what the module computes."""

import copy
from collections import Counter
from types import SimpleNamespace

import plain_kernels
import pytest
import torch
import traced_graphs
from diffusers import UNet2DConditionModel
from traced_graphs import Flat, copied, error, heavy, placed

from sdtrt.engines.backends.inductor.optimize import DEFAULTS
from sdtrt.engines.backends.inductor.passes import fp8
from sdtrt.engines.backends.inductor.profiling import launches
from sdtrt.engines.backends.inductor.trace import capture

SIDE = 16


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    plain_kernels.install_as_on_hopper(monkeypatch)


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=SIDE,
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        attention_head_dim=(1, 2),
        cross_attention_dim=64,
        layers_per_block=1,
        use_linear_projection=True,
    ).eval()


def inputs(dtype=torch.float16):
    generator = torch.Generator().manual_seed(1)
    drawn = {"sample": (2, 4, SIDE, SIDE), "encoder_hidden_states": (2, 77, 64)}
    made = {n: torch.randn(s, generator=generator).to(dtype) for n, s in drawn.items()}
    return {"sample": made["sample"], "timestep": torch.tensor([7.0, 7.0]), **made}


def largest_inputs(module):
    """By layer, as calibration finds them."""
    found = {}

    def note(name):
        def hook(layer, args):
            found[name] = max(found.get(name, 0.0), float(args[0].abs().max()))

        return hook

    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    hooks = [m.register_forward_pre_hook(note(n)) for n, m in module.named_modules() if isinstance(m, kinds)]
    with torch.no_grad():
        module(**inputs(torch.float32), return_dict=False)
    for hook in hooks:
        hook.remove()
    return found


@pytest.fixture(scope="module")
def traced(unet):
    """In half precision, with the ranges of its layers' inputs."""
    ranges = largest_inputs(unet)
    module = Flat(copy.deepcopy(unet)).half().to(memory_format=torch.channels_last)
    return capture(SimpleNamespace(name="unet"), module, inputs()), ranges


def rewritten(traced, without=()):
    """(graph of the prompt, graph of the step, how often each pass applied), rounded to FP8."""
    first, ranges = traced
    return traced_graphs.rewritten(copied(first), ranges, without)


def handed(prompt, step):
    """The inputs, and what the prompt's part makes of them for the step."""
    given = inputs()
    names = [n for n in step.inputs if n not in given]
    return given | dict(zip(names, traced_graphs.run(prompt, given), strict=True))


def run(prompt, step):
    """The step's output for the inputs."""
    return traced_graphs.run(step, handed(prompt, step))[0]


def targets(graph):
    return Counter(str(n.target) for n in graph.nodes.nodes if n.op == "call_function")


@pytest.fixture(scope="module")
def truth(unet):
    with torch.no_grad():
        return unet(**inputs(torch.float32), return_dict=False)[0]


@pytest.mark.parametrize("few", [8192, 0], ids=["one scale", "a column of scales"])
def test_everything_together_is_near_the_module(traced, truth, monkeypatch, few):
    monkeypatch.setattr(fp8, "FEW_ROWS", few)
    prompt, step, changes = rewritten(traced)
    assert error(run(prompt, step), truth) < 0.12
    assert {name for name in changes if not changes[name]} <= {"tanh_gelu", "vae_attention"}


def test_without_rounding_the_error_is_that_of_half_precision(traced, truth):
    prompt, step, _ = rewritten((traced[0], {}))
    assert error(run(prompt, step), truth) < 0.003


PASSES = [n for n in DEFAULTS if n not in ("split_prompt", "cudnn_attention")]


@pytest.mark.parametrize("name", PASSES)
def test_without_any_one_pass_it_is_near_the_module(traced, truth, name):
    prompt, step, changes = rewritten(traced, [name])
    assert name not in changes
    assert error(run(prompt, step), truth) < 0.12


def test_nothing_is_rounded_by_a_launch_of_its_own_where_a_triton_kernel_makes_it(traced):
    _, step, _ = rewritten(traced)
    sources = [n.args[0] for n in step.nodes.nodes if n.meta and str(n.target) == "aten._to_copy.default"]
    makers = {str(s.target) for s in sources}
    assert not {m for m in makers if m.startswith("sdtrt")}


def test_what_kernels_leave_to_each_other_is_not_done_twice(traced):
    _, step, changes = rewritten(traced)
    found = targets(step)
    assert found["sdtrt.conv3x3.default"] == changes["fp8_conv"]
    assert changes["conv_residual"] == 8, "one of every block"
    assert found["sdtrt.gated.default"] == changes["geglu"] == 4
    assert found["sdtrt.layer_norm.default"] == changes["layer_norm"] == 12
    assert found["aten.gelu.default"] == found["aten.layer_norm.default"] == found["aten.group_norm.default"] == 0
    assert found["aten.dropout.default"] == 0
    assert found["sdtrt.upsample.default"] == changes["upsample"] == 1
    assert found["aten.constant_pad_nd.default"] == 0, "what makes an image writes its border"


def test_every_node_of_a_rewritten_graph_has_a_cost_and_matmuls_keep_theirs(unet, traced):
    prompt, step, _ = rewritten(traced)
    given = handed(prompt, step)
    ours = [launches.priced(graph, placed(graph, given)) for graph in (step, prompt)]
    whole = capture(SimpleNamespace(name="unet"), Flat(unet), inputs(torch.float32))
    theirs = launches.priced(whole, placed(whole, inputs(torch.float32)))
    assert ours[0].notes == ()
    assert sum(map(heavy, ours)) == pytest.approx(heavy(theirs), rel=0.01)


@pytest.mark.parametrize("rows", [1, 24])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn])
def test_matmuls_of_these_tests_are_those_of_torch(rows, bias, dtype):
    a, b = (torch.randn(*size).to(torch.float8_e4m3fn) for size in ((24, 32), (16, 32)))
    scales = (torch.rand(rows, 1), torch.rand(1, 16)) if rows > 1 else (torch.tensor(0.5), torch.tensor(0.25))
    given = (a, b.t(), *scales, torch.randn(16).half() if bias else None, None, dtype, True)
    made, expected = traced_graphs.scaled_matmul(*given), torch.ops.aten._scaled_mm.default(*given)
    assert made.dtype == expected.dtype
    torch.testing.assert_close(made.float(), expected.float(), rtol=0.13 if dtype.itemsize == 1 else 2e-3, atol=2e-3)
