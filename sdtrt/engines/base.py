"""What a backend must do, and what every engine does alike: check its inputs, run, count, describe itself.

An engine is called with the tensors that its spec names, as keywords, and returns a dict of tensors. It is ready when
constructed, owns its buffers, and may be called from several threads.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from sdtrt.engines import batch_split, call_timing
from sdtrt.engines.batch_split import Usage
from sdtrt.engines.eager_fallback import Fallback
from sdtrt.errors import EngineError, ShapeError, Unsupported
from sdtrt.plan.layers import Layer, Plan
from sdtrt.shapes import shape_errors
from sdtrt.shapes.profile_selection import Fit, Ranges, Sizes, concerning
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile
from sdtrt.system.json_records import Record, config_error

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from sdtrt.bundle.manifest import Change
    from sdtrt.costs import GraphCosts


@dataclass(frozen=True)
class Unavailable:
    """Why a backend cannot run here, and the command that mends it."""

    reason: str
    fix: str


@dataclass(frozen=True)
class Source:
    """What an engine is built from. `onnx` is set for a backend that consumes ONNX; `module` is the checkpoint's.

    `report` is told what a long build is at, and the share of it that is done. `ranges` has the largest input magnitude
    of each layer that a backend is to quantize by itself, `passes` the graph passes that it runs by itself.
    """

    spec: ComponentSpec
    module: nn.Module
    profiles: tuple[ShapeProfile, ...]
    onnx: Path | None
    report: Callable[[str, float], None] = lambda label, share: None
    ranges: Mapping[str, float] = field(default_factory=dict)
    passes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineContext:
    """What an engine is loaded with.

    Attributes:
        spec: the component that the engine serves.
        profiles: the sizes that it was built for.
        options: the backend's options.
        rebuild: the command that builds the engine again.
        describe_add_profile: the command that adds a profile, given as text, and what that costs.
        eager: loads the checkpoint's module, which runs sizes that were not built; without it they are errors.
        single_profile: the engine is loaded to be profiled once, and should not hold memory twice for it.
    """

    spec: ComponentSpec
    profiles: tuple[ShapeProfile, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    rebuild: str = "sdtrt build MODEL --out BUNDLE"
    describe_add_profile: Callable[[str], str] | None = None
    eager: Callable[[], nn.Module] | None = None
    single_profile: bool = False


class EngineWeights(ABC):
    """The weights inside an engine whose weights can be replaced, by the names of the module's parameters.

    `checked` says that the user wants the engine compared with eager PyTorch after each change.
    """

    checked: bool

    @property
    @abstractmethod
    def changed(self) -> frozenset[str]:
        """Parameters that differ from those of the build."""

    @abstractmethod
    def read(self, parameters: Iterable[str]) -> dict[str, Tensor]:
        """Weights of the build, whatever is in the engine now."""

    @abstractmethod
    def shared(self, parameters: Iterable[str]) -> frozenset[str]:
        """Those of all the parameters that cannot change alone."""

    @abstractmethod
    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Give these parameters new values and all others those of the build, to the bit.

        They have the shapes and types of `read`, and are not written to afterwards. No thread may run the engine
        meanwhile. After an EngineError the engine has the weights that it had or those of the build: see `changed`.
        """


class Engine(ABC):
    """One loaded engine. Backends implement `_run` and `_layers`."""

    backend: Backend

    def __init__(self, context: EngineContext, device: torch.device) -> None:
        self.spec = context.spec
        self.context = context
        self.sizes = Sizes(context.spec, context.profiles, self._ranges)
        self.usage = Usage(self.sizes.profiles)
        self.device = device
        self.calls = 0
        self._seconds = 0.0
        self._counting = threading.Lock()
        self._fallback = Fallback(self.spec, context.eager, device) if context.eager else None

    def __call__(self, **tensors: Tensor) -> dict[str, Tensor]:
        """Check the tensors against the spec and the built sizes, run, and return the outputs by name.

        Floating inputs are cast to the spec's dtype. A batch that is larger than was built runs in parts. Raises
        ShapeError for any other size that was not built and EngineError for a missing, unknown or misplaced tensor.
        """
        started = time.perf_counter()
        ready = self._ready(tensors)
        fit = self._fit(ready)
        outputs, runs = self._serve(ready, fit), len(fit.rows) or 1 if fit else 1
        tally = call_timing.current()
        if tally is not None:
            self._wait()
        seconds = time.perf_counter() - started
        self.usage.count(fit)
        with self._counting:
            self.calls += runs
            self._seconds += seconds
        if tally is not None:
            tally.add(self, runs, seconds)
        return outputs

    def profile_for(self, tensors: Mapping[str, Tensor]) -> ShapeProfile:
        """The profile that serves these inputs, or the parts of a larger batch; ShapeError when none does."""
        ready = self._ready(tensors)
        fit = self.sizes.fit({n: t.shape for n, t in ready.items()})
        if fit is None:
            raise self._outside(ready)
        return self.sizes.profiles[fit.profile]

    @property
    def seconds(self) -> float:
        """Time of all calls so far, of all threads."""
        return self._seconds

    def notes(self) -> tuple[str, ...]:
        """What a user should know of the calls so far: profiles where there are several, split batches, fallbacks."""
        return self.usage.notes()

    def context_bytes(self) -> tuple[int | None, ...]:
        """The memory that a call takes beside its tensors, by profile; None where the backend does not say."""
        return (None,) * len(self.context.profiles)

    def weights(self) -> EngineWeights:
        """Access to the weights inside, as LoRA needs; Unsupported when they cannot be replaced."""
        raise Unsupported(f"weights are fixed in engines of {self.backend.name}", slug="refit-unsupported")

    def passes(self) -> tuple[Change, ...]:
        """What the graph passes changed that the backend ran by itself."""
        return ()

    def close(self) -> None:  # noqa: B027 (most engines hold nothing that must be freed by hand)
        """Free what the engine holds; calling it again is harmless."""

    def profile(
        self, tensors: Mapping[str, Tensor], sizes: Mapping[str, int], runs: int, folder: Path | None = None
    ) -> Plan:
        """Run `runs` times after a warm-up and return the layers with their times.

        `folder` gets the files of the backend's own tools, where it has any.
        """
        self._prepare(tensors)
        self(**tensors)
        self._wait()
        walls = []
        for _ in range(runs):
            started = time.perf_counter()
            self(**tensors)
            self._wait()
            walls.append((time.perf_counter() - started) * 1e3)
        return Plan(
            component=self.spec.name,
            backend=self.backend.name,
            backend_version=self.backend.version(),
            device=self.backend.device(self.context.options),
            precision=self.spec.dtype,
            sizes=dict(sizes),
            layers=self._layers(tensors, runs),
            wall_times_ms=tuple(walls) if self.backend.is_numeric else None,
            notes=(*self._timed_in(tensors), *self.notes()),
        )

    def _wait(self) -> None:
        """Until the device has done what this thread gave it: results are ready in the order of the caller's stream."""
        if self.device.type == "cuda":
            import torch

            torch.cuda.current_stream(self.device).synchronize()

    @abstractmethod
    def _layers(self, tensors: Mapping[str, Tensor], runs: int) -> tuple[Layer, ...]:
        """The layers, with the times of `runs` runs where they can be measured."""

    @abstractmethod
    def _run(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run on checked, contiguous tensors of the spec's dtypes."""

    def _ranges(self, profile: ShapeProfile) -> Ranges:
        """Shapes of the inputs that the engine takes in one of its profiles."""
        return {t.name: profile.shapes(t) for t in self.spec.inputs}

    def _fit(self, ready: Mapping[str, Tensor]) -> Fit | None:
        """How the tensors are served; None by the checkpoint's module, which the user must have allowed."""
        fit = self.sizes.fit({n: t.shape for n, t in ready.items()})
        if fit is None and self._fallback is None:
            raise self._outside(ready)
        return fit

    def _serve(self, ready: dict[str, Tensor], fit: Fit | None) -> dict[str, Tensor]:
        if fit is None and self._fallback is not None:
            self._check_weights()
            return self._fallback(ready)
        if fit is None or not fit.rows:
            return self._run(ready)
        parts = batch_split.apart(self.spec.inputs, ready, fit.rows)
        return batch_split.joined(self.spec.outputs, [self._run(part) for part in parts])

    def _outside(self, tensors: Mapping[str, Tensor]) -> ShapeError:
        shapes, rebuild = {n: tuple(t.shape) for n, t in tensors.items()}, self.context.rebuild
        describe_add_profile = self.context.describe_add_profile or (
            lambda profile: f'{rebuild} --add-profile "{profile}"'
        )
        return shape_errors.error(self.sizes, shapes, describe_add_profile)

    def _check_weights(self) -> None:
        """A module of the checkpoint has the weights of the build: Unsupported when the engine's are others by now."""
        try:
            changed = self.weights().changed
        except Unsupported:
            return
        if changed:
            raise Unsupported(
                f"{self.spec.name} cannot fall back to eager PyTorch: a LoRA was put into its engine at run time",
                slug="fallback-lora",
                expected="the weights of the build",
                hint="unload the LoRA, build it in with --lora, or add the size to the bundle",
            )

    def _timed_in(self, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
        """The profile that a profiling ran in, where there are several."""
        if len(self.sizes.profiles) < 2:
            return ()
        return (f"timed in profile {self.profile_for(tensors)}",)

    def _ready(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors as the engine takes them, of any size; all that is checked here no other profile could mend."""
        import torch

        expected = {t.name for t in self.spec.inputs}
        if tensors.keys() != expected:
            raise EngineError(
                f"{self.spec.name} was called with other inputs than it has",
                slug="engine-inputs",
                received=", ".join(sorted(tensors)),
                expected=", ".join(sorted(expected)),
            )
        ready = {}
        for t in self.spec.inputs:
            tensor = tensors[t.name]
            if tensor.device.type != self.device.type:
                raise EngineError(
                    f"{self.spec.name}.{t.name} lies on another device than the engine",
                    slug="engine-device",
                    received=tensor.device,
                    expected=self.device,
                    hint=f"move it: tensor.to({str(self.device)!r})",
                )
            ready[t.name] = tensor.to(getattr(torch, t.dtype)).contiguous()
        shape_errors.check(self.spec, {n: t.shape for n, t in ready.items()})
        return ready

    def _prepare(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors ready for a single run of the engine; ShapeError when they would need parts or a fallback."""
        ready = self._ready(tensors)
        fit = self.sizes.fit({n: t.shape for n, t in ready.items()})
        if fit is None or fit.rows:
            raise self._outside(ready)
        return ready


class Backend(ABC):
    """One way to make and run engines.

    Attributes:
        name: the file or folder in `backends/`.
        input_format: what `build` reads.
        opset: the ONNX opset that suits this backend.
        passes_package: the registry folder of its graph passes.
        passes: the graph passes that suit this backend.
        renamed_passes: passes by former names or former boolean options.
        is_numeric: False for a backend whose results mean nothing: they are not compared with eager PyTorch.
        native_code: loading an engine may run code of its author, so engines of unknown authors are refused.
        native_precisions: precisions to which the backend quantizes by itself, given activation ranges.
        code_files: patterns of files that run code as soon as they are read; their sha256 is compared before.
        options: the backend's options.
        run_options: options that may change without a rebuild.
    """

    name: str
    input_format: Literal["onnx", "module", "nothing"]
    opset = 20
    passes_package = "sdtrt.graph.passes"
    passes: tuple[str, ...] = ()
    renamed_passes: Mapping[str, str] = {"fp32_islands": "fp32_attention_scores"}
    is_numeric = True
    native_code = False
    native_precisions: frozenset[str] = frozenset()
    code_files: tuple[str, ...] = ()
    options: type[Record] = Record
    run_options: frozenset[str] = frozenset()

    def unavailable(self) -> Unavailable | None:
        """Why it cannot run on this machine, or None."""
        return None

    def sizes_key(self, spec: ComponentSpec, profiles: Sequence[ShapeProfile]) -> str:
        """What of the built sizes an engine depends on: part of its key. Every range of a profile, unless told less."""
        return "; ".join(map(str, concerning(spec, profiles)))

    @abstractmethod
    def version(self) -> str:
        """Version of the library behind it: part of an engine's key."""

    def device(self, options: Mapping[str, Any]) -> str:
        """Name of the hardware that engines built with `options` are bound to: part of an engine's key."""
        return "any"

    def gpu(self, options: Mapping[str, Any]) -> tuple[str, str] | None:
        """Name and compute capability, such as ("NVIDIA L4", "8.9"), of the GPU that such engines run on.

        None where they run on none, or where nothing tells.
        """
        return None

    def quantizes_layer(
        self, layer: nn.Module, options: Mapping[str, Any], passes: Sequence[str] | None = None
    ) -> bool:
        """Whether a build to one of `native_precisions` with these passes may round this linear or conv layer."""
        return True

    def passes_for(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Graph passes of an engine with these options: all of `passes`, unless an option rules one out."""
        return self.passes

    def check_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Fill in defaults; ConfigError for an option that does not exist or has a wrong value."""
        try:
            return self.options.model_validate(dict(options)).model_dump(mode="json")
        except ValidationError as exc:
            renamed = {old: f"passes: [{new}, ...]" for old, new in self.renamed_passes.items()}
            raise config_error(exc, list(self.options.model_fields), f"the options of {self.name}", renamed) from exc

    def join(self, plan: Plan, priced: GraphCosts) -> Plan:
        """Give the layers of a plan the costs of the ONNX nodes that they name."""
        from sdtrt import costs

        return costs.join(plan, priced)

    @abstractmethod
    def build(self, source: Source, options: Mapping[str, Any], folder: Path) -> None:
        """Write the engine into `folder`."""

    @abstractmethod
    def load(self, folder: Path, context: EngineContext) -> Engine:
        """Load the engine that `build` wrote; EngineError when its files are damaged."""


def damaged(context: EngineContext, cause: object) -> EngineError:
    """The error of a backend whose files do not load."""
    return EngineError(
        f"the engine of {context.spec.name} cannot be loaded",
        slug="engine-damaged",
        received=str(cause).strip().partition("\n")[0],
        expected="the files that were built",
        hint=f"rebuild: {context.rebuild} --force",
    )
