"""The graph passes of a GPU on a VAE, run on a CPU: one head as wide as the channels, and upsampling."""

import copy
from types import SimpleNamespace

import plain_kernels
import pytest
import torch
import traced_graphs
from diffusers import AutoencoderKL
from traced_graphs import copied, error, heavy, placed, run

from sdtrt.engines.backends.inductor.passes import vae_attention
from sdtrt.engines.backends.inductor.profiling import launches
from sdtrt.engines.backends.inductor.trace import capture

SIDE, CHANNELS = 12, 288


class Decoder(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, latent):
        return (self.inner.decode(latent, return_dict=False)[0],)


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    plain_kernels.install(monkeypatch)


@pytest.fixture(autouse=True)
def products():
    """The product of a GPU that adds up in float32 and keeps it: a CPU has none."""
    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("bmm.dtype", lambda a, b, kind: torch.bmm(a.to(kind), b.to(kind)), "CPU")
        yield


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(32, CHANNELS),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
    ).eval()


def latent(dtype):
    return torch.randn(2, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.fixture(scope="module")
def traced(vae):
    module = Decoder(copy.deepcopy(vae)).bfloat16().to(memory_format=torch.channels_last)
    return capture(SimpleNamespace(name="vae_decoder"), module, {"latent": latent(torch.bfloat16)})


@pytest.fixture(scope="module")
def truth(vae):
    with torch.no_grad():
        return vae.decode(latent(torch.float32), return_dict=False)[0]


def rewritten(traced, without=()):
    return traced_graphs.rewritten(copied(traced), without=without)[1:]


def error_of(graph, truth):
    return error(run(graph, {"latent": latent(torch.bfloat16)})[0], truth)


# The whole of it at once, some queries at a time with a remainder, and one query at a time.
@pytest.mark.parametrize("scores", [2**23, 2 * SIDE**2 * 50, 1], ids=["whole", "parts", "single"])
def test_vae_attention_is_near_the_module(traced, truth, monkeypatch, scores):
    monkeypatch.setattr(vae_attention, "SCORES", scores)
    graph, changes = rewritten(traced)
    assert changes["vae_attention"] == changes["upsample"] == 1
    assert error_of(graph, truth) < 0.02
    called = {str(n.target) for n in graph.nodes.nodes if n.op == "call_function"}
    assert not {t for t in called if "attention" in t or "upsample_nearest" in t}


def test_heads_that_a_kernel_takes_stay(traced, monkeypatch):
    monkeypatch.setattr(vae_attention, "WIDEST_OF_KERNELS", CHANNELS)
    assert rewritten(traced)[1]["vae_attention"] == 0


@pytest.mark.parametrize("name", ["vae_attention", "upsample"])
def test_without_any_one_pass_it_is_near_the_module(traced, truth, name):
    graph, changes = rewritten(traced, [name])
    assert name not in changes
    assert error_of(graph, truth) < 0.02


def test_a_rewritten_graph_costs_what_the_traced_one_does(traced):
    given = placed(traced, {"latent": latent(torch.bfloat16)})
    before, after = (launches.priced(graph, given) for graph in (traced, rewritten(traced)[0]))
    assert after.notes == ()
    assert heavy(after) == pytest.approx(heavy(before), rel=0.001)
