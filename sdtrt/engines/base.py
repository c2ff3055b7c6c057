"""The contract of backends, and what all engines share: check the inputs, choose a profile, run, count, profile.

An engine is called with the tensors that its spec names, as keywords, and returns a dict of tensors. It is ready when
constructed, owns its buffers, and may be called from several threads.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from sdtrt.engines import call_timing
from sdtrt.engines.batch_split import CallStats, concat_batch, split_batch
from sdtrt.engines.eager_fallback import EagerFallback
from sdtrt.engines.weights import EngineWeights
from sdtrt.errors import EngineError, ShapeError, Unsupported
from sdtrt.plan.layers import Layer, Plan
from sdtrt.shapes import shape_errors
from sdtrt.shapes.profile_selection import BuiltSizes, ProfileChoice, Ranges, relevant_profiles
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile, shapes_of
from sdtrt.system.json_records import Record, config_error

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from sdtrt.bundle.manifest import Change
    from sdtrt.costs import GraphCosts

# The record that `Backend.check_options` returned, an instance of the backend's own `options` class.
Options = Any


@dataclass(frozen=True)
class Unavailable:
    """Why a backend cannot run here, and the command that fixes it."""

    reason: str
    fix: str


@dataclass(frozen=True)
class Source:
    """What an engine is built from.

    Attributes:
        onnx: the graph, for a backend whose `input_format` is "onnx".
        report: takes the current stage of a long build and the share that is done.
        ranges: the largest input magnitude of each layer that the backend quantizes by itself.
        passes: the graph passes that the backend runs by itself.
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
        profiles: the sizes that it was built for.
        options: the backend's validated options.
        rebuild: the command that builds the engine again.
        describe_add_profile: the command that adds a profile, given as text, and the cost of that.
        eager: loads the checkpoint's module, which runs sizes that were not built; without it they are errors.
        single_profile: the engine is loaded to be profiled once, and should not hold its weights twice for that.
    """

    spec: ComponentSpec
    profiles: tuple[ShapeProfile, ...]
    options: Options
    rebuild: str = "sdtrt build MODEL --out BUNDLE"
    describe_add_profile: Callable[[str], str] | None = None
    eager: Callable[[], nn.Module] | None = None
    single_profile: bool = False


class Engine(ABC):
    """One loaded engine. Backends implement `_run` and `_layers`."""

    backend: Backend

    def __init__(self, context: EngineContext, device: torch.device) -> None:
        self.spec = context.spec
        self.context = context
        self.sizes = BuiltSizes(context.spec, context.profiles, self._ranges)
        self.call_stats = CallStats(self.sizes.profiles)
        self.device = device
        self.calls = 0
        self._seconds = 0.0
        self._counting = threading.Lock()
        self._fallback = EagerFallback(self.spec, context.eager, device) if context.eager else None

    def __call__(self, **tensors: Tensor) -> dict[str, Tensor]:
        """Check the tensors against the spec and the built sizes, run, and return the outputs by name.

        Floating inputs are cast to the spec's dtype. A batch that is larger than was built runs in parts. Raises
        ShapeError for any other size that was not built and EngineError for a missing, unknown or misplaced tensor.
        """
        started = time.perf_counter()
        inputs = self._checked(tensors)
        choice = self.sizes.choose(shapes_of(inputs))
        outputs, runs = self._serve(inputs, choice), len(choice.rows) or 1 if choice else 1
        times = call_timing.current()
        if times is not None:
            self._wait()
        seconds = time.perf_counter() - started
        self.call_stats.count(choice)
        with self._counting:
            self.calls += runs
            self._seconds += seconds
        if times is not None:
            times.add(self, runs, seconds)
        return outputs

    def profile_for(self, tensors: Mapping[str, Tensor]) -> ShapeProfile:
        """The profile that serves these inputs, or the parts of a larger batch; ShapeError when none does."""
        inputs = self._checked(tensors)
        choice = self.sizes.choose(shapes_of(inputs))
        if choice is None:
            raise self._size_error(inputs)
        return self.sizes.profiles[choice.profile]

    @property
    def seconds(self) -> float:
        """Time of all calls so far, of all threads."""
        return self._seconds

    def notes(self) -> tuple[str, ...]:
        """The calls so far for the user: profiles where there are several, split batches, fallbacks."""
        return self.call_stats.notes()

    def context_bytes(self) -> tuple[int | None, ...]:
        """The memory that a call takes beside its tensors, by profile; None where the backend does not report it."""
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

        Args:
            tensors: the inputs by name, of a size that runs in one part.
            sizes: sizes of the symbols at these inputs, for the record.
            runs: timed runs.
            folder: gets the files of the backend's own tools, where it has any.

        Raises:
            EngineError: for inputs that the engine does not have.
            ShapeError: for a size that needs several parts or was not built.
        """
        self._prepare(tensors)
        self(**tensors)
        self._wait()
        wall_times_ms = []
        for _ in range(runs):
            started = time.perf_counter()
            self(**tensors)
            self._wait()
            wall_times_ms.append((time.perf_counter() - started) * 1e3)
        return Plan(
            component=self.spec.name,
            backend=self.backend.name,
            backend_version=self.backend.version(),
            device=self.backend.device(self.context.options),
            precision=self.spec.dtype,
            sizes=dict(sizes),
            layers=self._layers(tensors, runs),
            wall_times_ms=tuple(wall_times_ms) if self.backend.is_numeric else None,
            notes=(*self._timed_in(tensors), *self.notes()),
        )

    def _wait(self) -> None:
        """Wait for the caller's stream, in whose order the results are ready."""
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
        """(min, opt, max) shapes of the inputs in one of the engine's profiles."""
        return {t.name: profile.shapes(t) for t in self.spec.inputs}

    def _serve(self, inputs: dict[str, Tensor], choice: ProfileChoice | None) -> dict[str, Tensor]:
        if choice is None and self._fallback is None:
            raise self._size_error(inputs)
        if choice is None and self._fallback is not None:
            self._check_weights()
            return self._fallback(inputs)
        if choice is None or not choice.rows:
            return self._run(inputs)
        return concat_batch(self.spec, [self._run(part) for part in split_batch(self.spec, inputs, choice.rows)])

    def _size_error(self, inputs: Mapping[str, Tensor]) -> ShapeError:
        rebuild = self.context.rebuild
        describe_add_profile = self.context.describe_add_profile or (
            lambda profile: f'{rebuild} --add-profile "{profile}"'
        )
        return shape_errors.error(self.sizes, shapes_of(inputs), describe_add_profile)

    def _failed(self, cause: Exception, tensors: Mapping[str, Tensor]) -> EngineError:
        """The error of a backend whose library failed on these inputs."""
        return EngineError(
            f"the engine of {self.spec.name} failed",
            slug="engine-failed",
            received=str(cause).strip().splitlines()[0],
            expected=", ".join(f"{n} {shape}" for n, shape in shapes_of(tensors).items()) + " to run",
        )

    def _check_weights(self) -> None:
        """Unsupported when the engine has other weights than the build, whose weights the module has."""
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

    def _checked(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors in the spec's dtypes, contiguous, of any size; raises for what no profile would allow."""
        import torch

        expected = {t.name for t in self.spec.inputs}
        if tensors.keys() != expected:
            raise EngineError(
                f"{self.spec.name} was called with other inputs than it has",
                slug="engine-inputs",
                received=", ".join(sorted(tensors)),
                expected=", ".join(sorted(expected)),
            )
        inputs = {}
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
            inputs[t.name] = tensor.to(getattr(torch, t.dtype)).contiguous()
        shape_errors.check(self.spec, shapes_of(inputs))
        return inputs

    def _prepare(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a single run of the engine; ShapeError when they would need parts or a fallback."""
        inputs = self._checked(tensors)
        choice = self.sizes.choose(shapes_of(inputs))
        if choice is None or choice.rows:
            raise self._size_error(inputs)
        return inputs


class Backend(ABC):
    """One way to build and run engines.

    Attributes:
        name: the file or folder in `backends/`.
        input_format: what `build` reads.
        opset: the ONNX opset that suits this backend.
        passes_package: the registry folder of its graph passes.
        renamed_passes: passes by former names or former boolean options.
        is_numeric: False for a backend whose results mean nothing: they are not compared with eager PyTorch.
        native_code: loading an engine may run code of its author, so engines of unknown authors are refused.
        native_precisions: precisions to which the backend quantizes by itself, given activation ranges.
        code_files: patterns of files that run code as soon as they are read; their sha256 is compared before.
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
        """The part of an engine's key that depends on the sizes: every range of every profile, by default."""
        return "; ".join(map(str, relevant_profiles(spec, profiles)))

    @abstractmethod
    def version(self) -> str:
        """Version of the backend's library: part of an engine's key."""

    def device(self, options: Options) -> str:
        """Name of the hardware that engines built with `options` are bound to: part of an engine's key."""
        return "any"

    def gpu(self, options: Options) -> tuple[str, str] | None:
        """Name and compute capability, such as ("NVIDIA L4", "8.9"), of the GPU that such engines run on.

        None where they run on none, or where it is unknown.
        """
        return None

    def quantizes_layer(self, layer: nn.Module, options: Options, passes: Sequence[str] | None = None) -> bool:
        """Whether a build to one of `native_precisions` with these passes may quantize this linear or conv layer."""
        return True

    def passes_for(self, options: Options) -> tuple[str, ...]:
        """Graph passes of an engine with these options: all of `passes`, unless an option rules one out."""
        return self.passes

    def check_options(self, options: Mapping[str, Any]) -> Options:
        """The options as a record, with defaults; ConfigError for an unknown option or a wrong value.

        Options are validated here only: all other methods and `EngineContext` take the record.
        """
        try:
            return self.options.model_validate(dict(options))
        except ValidationError as exc:
            hints = {
                former: f"it is the pass {now} now; leave it out of `passes:` to switch it off"
                for former, now in self.renamed_passes.items()
            }
            raise config_error(exc, list(self.options.model_fields), f"the options of {self.name}", hints) from exc

    def join(self, plan: Plan, graph_costs: GraphCosts) -> Plan:
        """Give the layers of a plan the costs of the ONNX nodes that they name."""
        from sdtrt import costs

        return costs.join(plan, graph_costs)

    @abstractmethod
    def build(self, source: Source, options: Options, folder: Path) -> None:
        """Write the engine into `folder`."""

    @abstractmethod
    def load(self, folder: Path, context: EngineContext) -> Engine:
        """Load the engine that `build` wrote; EngineError when its files are damaged."""


def damaged(context: EngineContext, cause: object) -> EngineError:
    """The error for files of an engine that do not load."""
    return EngineError(
        f"the engine of {context.spec.name} cannot be loaded",
        slug="engine-damaged",
        received=str(cause).strip().partition("\n")[0],
        expected="the files that were built",
        hint=f"rebuild: {context.rebuild} --force",
    )
