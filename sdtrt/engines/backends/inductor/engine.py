"""PyTorch's compiler ahead of time: engines for a GPU without TensorRT, and for the CPU.

An engine has one package of compiled code per size (`buckets.py` says which), loads in seconds and compiles
nothing at run time. Weights are arguments of the code and lie in one safetensors file, so that a LoRA replaces them in
place. Graph passes run before Inductor: one file each in `passes/`, chosen by the recipe's `passes`;
docs/performance.md has the gain of each. A package is native code and a pickle: one that was changed is
refused before it is opened, and bundles from elsewhere are trusted or refused.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sdtrt.engines.backends.inductor import buckets
from sdtrt.engines.backends.inductor.engine_record import BucketRecord, EngineRecord
from sdtrt.engines.backends.inductor.optimize import DEFAULTS, PASSES, RENAMED
from sdtrt.engines.backends.inductor.pass_context import is_hopper
from sdtrt.engines.base import Backend, Engine, EngineContext, Source, Unavailable, damaged
from sdtrt.errors import EngineError
from sdtrt.plan.layers import Layer, Plan
from sdtrt.shapes.spec import shapes_of
from sdtrt.system import env
from sdtrt.system.json_records import Record

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from sdtrt.bundle.manifest import Change
    from sdtrt.engines.backends.inductor.runner import Runner
    from sdtrt.engines.weights import EngineWeights


class InductorOptions(Record):
    """Options of this backend."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto is the GPU where torch sees one")
    rows: tuple[int, ...] = Field((), description="rows to compile for, such as [2, 16]; else the profiles say it")
    cuda_graphs: bool = Field(True, description="replay each package as one CUDA graph; holds its buffers")
    bf16_vae: bool = Field(False, description="GPU: a VAE that must stay float32 computes in bfloat16 all the same")
    tune: bool = Field(False, description="try more tile sizes for every generated kernel; a build takes longer")

    def settings(self) -> dict[str, Any]:
        """The configuration of Inductor."""
        return {"coordinate_descent_tuning": True} if self.tune else {}


class InductorEngine(Engine):
    """The packages of one component with their weights; one thread at a time is inside."""

    def __init__(self, context: EngineContext, folder: Path) -> None:
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from sdtrt.engines.backends.inductor.build import WEIGHTS

        try:
            self.record = EngineRecord.load(folder)
            weights = load_file(folder / WEIGHTS)
        except (EngineError, OSError, SafetensorError) as exc:
            raise damaged(context, exc) from exc
        found = [buckets.Bucket(tuple(b.sizes.items()), b.rows) for b in self.record.buckets]
        profiles = buckets.fixed(context.spec, found, context.profiles[0])
        super().__init__(replace(context, profiles=profiles), device_of(context.options))
        options: InductorOptions = context.options
        self._folder, self._lock = folder, threading.Lock()
        on_gpu = self.device.type == "cuda"
        self.tensors: dict[str, Tensor] = {}
        for name in list(weights):
            tensor = weights.pop(name).to(self.device)
            image = on_gpu and tensor.dim() == 4
            self.tensors[name] = tensor.contiguous(memory_format=torch.channels_last) if image else tensor
        pool = torch.cuda.MemPool() if on_gpu and options.cuda_graphs else None
        self._runners = [(b, self._runner(b, pool)) for b in self.record.buckets]
        self._untimed: tuple[str, ...] = ()

    def _runner(self, bucket: BucketRecord, pool: Any) -> Runner:
        from sdtrt.engines.backends.inductor import cpp_kernels, package
        from sdtrt.engines.backends.inductor.runner import Part, Runner

        def part(record: Any) -> Part:
            with cpp_kernels.kept(self._folder):
                return Part(package.load(self._folder / record.file), record.arguments)

        inputs = {t.name for t in self.spec.inputs}
        try:
            prompt = None
            if bucket.prompt is not None:
                used = tuple(a for a in bucket.prompt.arguments if a in inputs)
                prompt = (part(bucket.prompt), used, bucket.handed)
            return Runner(part(bucket.step), prompt, self.tensors, self.device, pool)
        except Exception as exc:
            raise damaged(self.context, exc) from exc

    def _run(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        rows = next(iter(tensors.values())).shape[0]
        bucket, runner = self._choose(tensors, rows)
        ready = {n: _padded(t, bucket.rows) for n, t in tensors.items()} if rows < bucket.rows else tensors
        try:
            with self._lock:
                outputs = runner(ready, tensors)
        except RuntimeError as exc:
            raise self._failed(exc, tensors) from exc
        named = zip(self.spec.outputs, outputs, strict=True)
        return {t.name: o.narrow(self.spec.batch_axes[t.name], 0, rows) if rows < bucket.rows else o for t, o in named}

    def _choose(self, tensors: Mapping[str, Tensor], rows: int) -> tuple[BucketRecord, Runner]:
        """The smallest package that takes the rows, of those of exactly this size, which the caller has checked."""
        sizes = self.spec.sizes_of(shapes_of(tensors))
        del sizes["B"]
        return min(
            ((b, r) for b, r in self._runners if b.sizes == sizes and b.rows >= rows), key=lambda found: found[0].rows
        )

    def weights(self) -> EngineWeights:
        """The weights, which the compiled code reads where they are."""
        from sdtrt.engines.backends.inductor.weights import InductorWeights

        return InductorWeights(self, self._folder)

    def weights_changed(self) -> None:
        """Drop what was computed from the former weights."""
        for _, runner in self._runners:
            runner.forget()

    def profile(
        self, tensors: Mapping[str, Tensor], sizes: Mapping[str, int], runs: int, folder: Path | None = None
    ) -> Plan:
        """The launches of the package that takes these tensors, with their times and the graph's costs.

        Args:
            tensors: the inputs by name.
            sizes: the sizes that they have, by symbol.
            runs: number of timed runs.
            folder: where a backend may write its own profile; unused.

        Returns:
            A plan with one time in milliseconds per layer and run.
        """
        plan = super().profile(tensors, sizes, runs, folder)
        built = self._built(tensors)
        graph_facts = {f: getattr(built, f) for f in ("shapes", "nodes", "total_flops", "total_weight_bytes")}
        return plan.model_copy(update={**graph_facts, "notes": (*plan.notes, *built.notes, *self._untimed)})

    def _layers(self, tensors: Mapping[str, Tensor], runs: int) -> tuple[Layer, ...]:
        from sdtrt.engines.backends.inductor.profiling import timing

        ready = self._prepare(tensors)
        bucket, runner = self._choose(ready, len(next(iter(ready.values()))))
        padded = {n: _padded(t, bucket.rows) for n, t in ready.items()}
        with self._lock:
            layers, self._untimed = timing.measure(runner.plain(padded), self._built(tensors).layers, self.device, runs)
        return layers

    def _built(self, tensors: Mapping[str, Tensor]) -> Plan:
        """The plan that was written when the package for these tensors was compiled."""
        from sdtrt.engines.backends.inductor.profiling import launches

        rows = len(next(iter(tensors.values())))
        bucket, _ = self._choose(tensors, rows)
        plan = Plan.load(launches.path_of(self._folder / bucket.step.file))
        notes = list(plan.notes)
        if bucket.rows > rows:
            notes.append(f"the package computes {bucket.rows} rows, of which {rows} were asked for")
        if bucket.prompt is not None:
            once = Plan.load(launches.path_of(self._folder / bucket.prompt.file))
            notes.append(f"what depends on the prompt alone runs once per prompt, in {len(once.layers)} more launches")
        return plan.model_copy(update={"notes": tuple(notes)})

    def passes(self) -> tuple[Change, ...]:
        """Graph passes of the build at the largest size, which their notes name where there are several."""
        return self.record.passes

    def close(self) -> None:
        """Drop code, graphs and weights."""
        self._runners, self.tensors = [], {}


def device_of(options: InductorOptions) -> torch.device:
    """Where an engine with these options runs."""
    import torch

    if options.device == "cpu" or (options.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return torch.device("cuda", 0)


def _padded(tensor: Tensor, rows: int) -> Tensor:
    """The last row repeated: what comes of it is cut off."""
    import torch

    return torch.cat([tensor, tensor[-1:].expand(rows - len(tensor), *tensor.shape[1:])])


class Inductor(Backend):
    """The backend."""

    name = "inductor"
    input_format = "module"
    passes_package = PASSES
    passes = DEFAULTS
    renamed_passes = RENAMED
    native_precisions = frozenset({"fp8"})
    native_code = True  # a package is a pickle and compiled kernels
    code_files = ("*.inductor", "*.so", "engine.json")
    options = InductorOptions
    run_options = frozenset({"cuda_graphs"})

    def unavailable(self) -> Unavailable | None:
        """A GPU needs Triton, which comes with torch; the CPU a C++ compiler."""
        import shutil

        import torch

        if torch.cuda.is_available() and not env.importable("triton"):
            return Unavailable("triton is not installed", "pip install triton")
        if not torch.cuda.is_available() and not (shutil.which("g++") or shutil.which("clang++")):
            return Unavailable("there is no C++ compiler", "apt-get install g++")
        return None

    def version(self) -> str:
        """Versions of torch and, where it is, Triton: compiled code is of both."""
        triton = env.version("triton")
        return f"torch {env.version('torch')}" + (f", triton {triton}" if triton else "")

    def device(self, options: InductorOptions) -> str:
        """The CPU's name, or the GPU's with its compute capability."""
        gpu = self.gpu(options)
        return env.cpu_name() if gpu is None else f"{gpu[0]} (sm_{gpu[1].replace('.', '')})"

    def gpu(self, options: InductorOptions) -> tuple[str, str] | None:
        """Name and compute capability of the GPU."""
        import torch

        device = device_of(options)
        if device.type == "cpu":
            return None
        return torch.cuda.get_device_name(device), "{}.{}".format(*torch.cuda.get_device_capability(device))

    def quantizes_layer(self, layer: nn.Module, options: InductorOptions, passes: Sequence[str] | None = None) -> bool:
        """Linear layers, and on Hopper and later 3x3 convolutions, where the pass `fp8_conv` is among `passes`."""
        from sdtrt.engines.backends.inductor.graph_edits import fp8_eligibility

        convolutions = "fp8_conv" in (self.passes if passes is None else passes)
        return fp8_eligibility.suits(layer, convolutions and is_hopper(device_of(options)))

    def build(self, source: Source, options: InductorOptions, folder: Path) -> None:
        """Trace, rewrite and compile for every size that the profiles name."""
        from sdtrt.engines.backends.inductor.build import build

        build(source, options, device_of(options), folder)

    def load(self, folder: Path, context: EngineContext) -> InductorEngine:
        """Load packages and weights."""
        return InductorEngine(context, folder)


BACKEND = InductorEngine.backend = Inductor()
