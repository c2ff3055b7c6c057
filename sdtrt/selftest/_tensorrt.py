"""Checks of TensorRT alone: profiles, CUDA graphs, refit, timing cache, version check, layers, fusion, messages."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median
from typing import TYPE_CHECKING, Any

from sdtrt.engines import accuracy
from sdtrt.engines.backends.tensorrt import self_checks
from sdtrt.engines.backends.tensorrt.logger import collect_errors
from sdtrt.errors import EngineError
from sdtrt.selftest._bench import Bench
from sdtrt.selftest._runner import Case, Failed, Figures, Skipped

if TYPE_CHECKING:
    from torch import Tensor

_RUNS = 10
_FACTOR = 1.25  # of one weight, for a visible effect of the refit


def profiles(bench: Bench) -> Figures:
    """Each profile is active at its own size."""
    engine: Any = bench.load("unet")
    figures = {}
    for index in range(len(bench.profiles)):
        shapes = {n: tuple(t.shape) for n, t in bench.inputs(engine, bench.sizes(index)).items()}
        figures[f"size {index}"] = self_checks.active_profile(engine, shapes)
    if list(figures.values()) != list(range(len(bench.profiles))):
        raise Failed("a size runs in another profile than its own", figures)
    return figures


def graphs(bench: Bench) -> Figures:
    """Replayed runs give the results of plain runs."""
    figures: Figures = {}
    for name in ("text_encoder", "unet"):
        plain, captured = bench.load(name, cuda_graphs=0), bench.load(name)
        inputs = bench.inputs(plain, bench.sizes())
        other = {n: t.flip(-1).contiguous() if t.is_floating_point() else t for n, t in inputs.items()}
        for _ in range(3):
            captured(**other)
        differing = [n for n, t in plain(**inputs).items() if not t.equal(captured(**inputs)[n])]
        session: Any = getattr(captured, "session", None)
        counts = session.stats.as_json()
        figures |= {f"{name} {event}": counts[event] for event in ("captured", "replayed")}
        if counts["refused"]:
            raise Failed(f"{name} was not captured: {'; '.join(counts['refused'])}", figures)
        if not counts["replayed"]:
            raise Failed(f"{name} was never replayed", figures)
        if differing:
            raise Failed(f"{name}: {', '.join(differing)} differ from a run without a graph", figures)
    return figures


def refit(bench: Bench) -> Figures:
    """New weights have an effect, and the restored old ones give the old result to the bit."""
    bench.build("unet", "refit", refit="all")
    engine = bench.load("unet", "refit", refit="all")
    inputs = bench.inputs(engine, bench.sizes())
    figures: Figures = {"error before": accuracy.component_error(engine, bench.eager("unet"), bench.sizes())}
    before, weights = _run(engine, inputs), engine.weights()
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    weights.put({name: weights.read([name])[name] * _FACTOR})
    changed = _run(engine, inputs)
    figures["error after"] = accuracy.worst_error((changed,), (_run_eager_scaled(bench, name, inputs),))
    weights.put({})
    limit = accuracy.LIMITS[bench.precision][0]
    if changed.equal(before):
        raise Failed("a refit had no effect", figures)
    if not _run(engine, inputs).equal(before):
        raise Failed("after the old weights were put back the result is another", figures)
    if not max(figures["error before"], figures["error after"]) <= limit:
        raise Failed(f"a refittable engine differs from eager PyTorch by more than {limit:g}", figures)
    return figures


def _run(engine: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    for _ in range(2):
        engine(**inputs)  # the third call is a replay
    sample: Tensor = engine(**inputs)["out_sample"].clone()
    return sample


def _run_eager_scaled(bench: Bench, name: str, inputs: Mapping[str, Tensor]) -> Tensor:
    import torch

    module: Any = bench.eager("unet")
    weight = module.inner.get_parameter(name)
    with torch.inference_mode():
        weight.mul_(_FACTOR)
        try:
            outputs = module(**{n: t.cpu().float() if t.is_floating_point() else t.cpu() for n, t in inputs.items()})
        finally:
            weight.div_(_FACTOR)
    result: Tensor = outputs[0]
    return result


def timing_cache(bench: Bench) -> Figures:
    """A second build reads the timing cache of the first."""
    folder, figures = bench.folder / "timing", {}
    for number in ("first", "second"):
        started = time.perf_counter()
        built = bench.build("text_encoder", "cached", timing_cache_folder=str(folder))
        figures[f"{number} seconds"] = time.perf_counter() - started
        if refused := [note for note in self_checks.build_notes(built) if "timing cache" in note]:
            raise Failed(f"in the {number} build: {refused[0]}", figures)
        figures[f"{number} bytes"] = sum(f.stat().st_size for f in folder.glob("*.cache"))
    if not figures["first bytes"]:
        raise Failed("no timing cache was written", figures)
    return figures


def foreign_plan(bench: Bench) -> Figures:
    """A plan whose header has another TensorRT version is refused before it is read."""
    self_checks.copy_with_other_version(bench.folder / "text_encoder.plain", bench.folder / "text_encoder.foreign")
    try:
        bench.load("text_encoder", "foreign")
    except EngineError as exc:
        if exc.slug == "plan-version":
            return {"refused": str(exc.received)}
        raise
    raise Failed("it was loaded")


def layers(bench: Bench) -> Figures:
    """Every layer has a time; the figures compare their sum with whole runs."""
    engine = bench.load("unet")
    plan = engine.profile(bench.inputs(engine, bench.sizes()), bench.sizes(), _RUNS, bench.folder / "profile")
    times = [layer.time_ms for layer in plan.layers]
    figures = {
        "layers": len(times),
        "without a time": times.count(None),
        "sum ms": sum(t for t in times if t is not None),
        "run ms": median(plan.wall_times_ms or [float("nan")]),
    }
    if not figures["sum ms"] > 0 or not figures["run ms"] > 0:
        raise Failed("no times were reported", figures)
    if figures["without a time"] * 2 > len(times):
        raise Failed("most layers of the inspector have no time: names do not match", figures)
    return figures


def attention(bench: Bench) -> Figures:
    """The number of layers with `mha` in their names, and of attentions in the graph."""
    import onnx

    graph = onnx.load(bench.onnx("unet"), load_external_data=False).graph
    sites = sum(node.op_type in ("Softmax", "Attention") for node in graph.node)
    engine = bench.load("unet")
    plan = engine.profile(bench.inputs(engine, bench.sizes()), bench.sizes(), 1)
    names = [f"{layer.name} {layer.kernel or ''}" for layer in plan.layers]
    figures = {"attentions": sites, "fused": sum("mha" in name for name in names)}
    if not figures["fused"]:
        raise Failed("TensorRT fused no attention of this small model", figures)
    return figures


def messages(bench: Bench) -> Figures:
    """Wrong calls: TensorRT refuses them, with messages that the error table matches."""
    figures: Figures = {}
    engine: Any = bench.load("unet")
    for slug, wrong_call in self_checks.refused_calls(engine).items():
        with collect_errors() as logged:
            if wrong_call():
                raise Failed(f"TensorRT did not refuse {slug}", figures)
        figures[slug] = " / ".join(logged) or "no message"
        if slug not in map(self_checks.error_slug, logged):
            raise Failed(f"the message of {slug} is not known: {figures[slug]}", figures)
    if not figures:
        raise Skipped("there is no such call")
    return figures


CASES = (
    Case("profiles", "each size runs in its own optimization profile", profiles, ("load",)),
    Case("graphs", "CUDA graphs give what plain runs give", graphs, ("load",)),
    Case("refit", "weights are replaced and put back to the bit", refit, ("load",)),
    Case("timing-cache", "the timing cache is kept and taken", timing_cache, ("build",)),
    Case("foreign-plan", "a plan of another TensorRT is refused", foreign_plan, ("build",)),
    Case("layers", "every layer is timed; their sum beside a whole run", layers, ("load",)),
    Case("attention", "attention is fused", attention, ("load",)),
    Case("words", "its messages are known", messages, ("load",)),
)
