"""Rows in shares that are computed side by side: the results, the prompt and the plan are those of the whole."""

from functools import partial

import pytest
import small_checkpoint
import torch

from sdtrt import engines, models
from sdtrt.engines import EngineContext, Source, _cuda_graph
from sdtrt.engines._inductor.runner import Part, Runner
from sdtrt.engines._inductor.shares import Shares
from sdtrt.samples import sample_inputs
from sdtrt.spec import ShapeProfile

pytestmark = pytest.mark.usefixtures("one_thread")
PROFILE = ShapeProfile.parse("B=1:2:2,H=64,W=64,T=77")


def test_shares_are_cut_along_the_rows_and_joined_again():
    shares = Shares(2, {"x": 0, "y": 1}, (1,))
    x, y, scale = torch.arange(8).reshape(4, 2), torch.arange(8).reshape(2, 4), torch.tensor(3.0)
    first, second = shares.cut({"x": x, "y": y, "scale": scale})
    assert torch.equal(torch.cat([first["x"], second["x"]]), x)
    assert first["scale"] is second["scale"] is scale
    (joined,) = shares.join([(first["y"],), (second["y"],)])
    assert torch.equal(joined, y)


def test_each_share_has_its_own_rows_of_the_prompt():
    seen = []

    def encode(prompt):
        seen.append(prompt.clone())
        return (prompt * 2,)

    step = Part(lambda x, handed: (x + handed,), ("x", "handed"))
    prompt = (Part(encode, ("prompt",)), ("prompt",), ("handed",))
    shares = Shares(2, {"x": 0, "prompt": 0}, (0,))
    runner = Runner(step, prompt, {}, torch.device("cpu"), None, shares=shares)
    given = {"x": torch.ones(4, 3), "prompt": torch.arange(12.0).reshape(4, 3)}
    for _ in range(2):
        (made,) = runner(given, given)
        assert torch.equal(made, given["x"] + 2 * given["prompt"])
    assert [len(p) for p in seen] == [2, 2]
    given["prompt"] *= 2
    (made,) = runner(given, given)
    assert torch.equal(made, given["x"] + 2 * given["prompt"])


@pytest.fixture(scope="module")
def checkpoint(models, tmp_path_factory):
    return small_checkpoint.make(models["sd2"], tmp_path_factory.mktemp("shares") / "model", levels=1)


@pytest.fixture(scope="module")
def built(checkpoint, tmp_path_factory):
    """(engine of two rows in two shares and of one row, its module)."""
    spec = models.family_of(checkpoint).components(checkpoint, "fp32")["unet"]
    module, folder = spec.load(checkpoint), tmp_path_factory.mktemp("engine")
    backend = engines.load("inductor")
    options = backend.check_options({"streams": 2, "rows": [1, 2], "device": "cpu"})
    backend.build(Source(spec, module, (PROFILE,), None), options, folder)
    return backend.load(folder, EngineContext(spec, (PROFILE,), options)), module


@pytest.mark.parametrize("rows", [1, 2])
def test_an_engine_of_shares_computes_what_the_module_does(built, rows):
    engine, module = built
    inputs = {n: t[:rows] for n, t in sample_inputs(engine.spec, {"B": 2, "H": 64, "W": 64, "T": 77}).items()}
    with torch.no_grad():
        expected = module(**inputs)[0]
    (made,) = engine(**inputs).values()
    assert torch.allclose(made, expected, atol=1e-4)
    assert [b.shares for b in engine.record.buckets] == [1, 2]


def test_the_plan_has_every_launch_of_every_share_and_the_work_of_the_whole(built):
    engine, _ = built
    inputs = {n: t[:2] for n, t in sample_inputs(engine.spec, {"B": 2, "H": 64, "W": 64, "T": 77}).items()}
    two, one = (engine.profile({n: t[:rows] for n, t in inputs.items()}, {}, 2) for rows in (2, 1))
    assert len(two.layers) == 2 * len(one.layers)
    assert {layer.stream for layer in two.layers} == {0, 1}
    assert len({layer.name for layer in two.layers}) == len(two.layers)
    assert all(layer.times_ms for layer in two.layers)
    assert two.total_flops == 2 * one.total_flops == sum(layer.flops for layer in two.layers)
    assert two.total_weight_bytes == sum(layer.weight_bytes for layer in two.layers) == one.total_weight_bytes
    assert two.shapes["sample"] == tuple(inputs["sample"].shape)
    assert any("2 shares" in note for note in two.notes)
    assert not [note for note in two.notes if "belong to no launch" in note]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_calls_side_by_side_are_one_graph():
    device, owner = torch.device("cuda", 0), torch.nn.Module()
    inputs = [torch.randn(256, 256, device=device) for _ in range(3)]

    def chain(x):
        for _ in range(50):
            x = torch.nn.functional.normalize(x @ x.T)
        return x

    here, *others = (_cuda_graph.own_stream(device, owner) for _ in inputs)
    enqueue = partial(_cuda_graph.side_by_side, others, [partial(chain, x) for x in inputs])
    with torch.cuda.stream(here):
        enqueue()
    torch.cuda.synchronize()
    graph, made = _cuda_graph.capture(here, enqueue, torch.cuda.MemPool())
    for _ in range(5):
        for x in inputs:
            x.normal_()
        graph.replay()
        sums = [t.sum() for t in made]  # on the stream that waits for all of them
        expected = [chain(x) for x in inputs]
        for total, tensor, right in zip(sums, made, expected, strict=True):
            assert torch.allclose(tensor, right, atol=1e-5)
            assert torch.allclose(total, right.sum(), rtol=1e-4)
