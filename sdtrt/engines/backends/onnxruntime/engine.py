"""ONNX Runtime: the exported graph, optimized by the runtime when it is loaded. CPU by default.

Opset 20, in which GELU is one node, and the runtime's own operator for attention: that of opset 23 writes all scores to
memory, as the operators of opset 20 do. Tensors are bound by address on the CPU and on CUDA alike, without copies.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from sdtrt.engines.backends.onnxruntime.cuda_session import CudaSession
from sdtrt.engines.backends.onnxruntime.weights import OrtWeights, Replaced
from sdtrt.engines.base import Backend, Engine, EngineContext, Source, Unavailable, damaged
from sdtrt.errors import BackendUnavailable, EngineError
from sdtrt.plan.layers import Layer
from sdtrt.shapes import profile_selection
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile, shapes_of
from sdtrt.system import env, malloc, nvml
from sdtrt.system.json_records import Record

if TYPE_CHECKING:
    from torch import Tensor

MODEL = "engine.onnx"
# The name inside the model file: external data is found by it.
WEIGHTS = "model.onnx.data"
# The pass that inserts the runtime's attention operator, and the providers that have a kernel for it.
FUSION = "fuse_attention"
FUSING = {"CPUExecutionProvider", "CUDAExecutionProvider"}


class OrtOptions(Record):
    """Options of this backend."""

    providers: tuple[str, ...] = Field(("CPUExecutionProvider",), description="execution providers, best first")
    threads: int = Field(0, ge=0, description="threads inside an operator; 0 means one per core")
    cuda_graphs: bool = Field(False, description="CUDA only: capture each shape once and replay it; holds its buffers")


class OrtEngine(Engine):
    """One inference session; `run` may be called from several threads."""

    def __init__(self, context: EngineContext, path: Path) -> None:
        import torch

        options: OrtOptions = context.options
        cuda = options.providers[0] in {"CUDAExecutionProvider", "TensorrtExecutionProvider"}
        super().__init__(context, torch.device("cuda", 0) if cuda else torch.device("cpu"))
        self._options = options
        self._path = path
        self._cuda = CudaSession(self.device, options.cuda_graphs) if cuda else None
        self._graphs_off: str | None = None
        self._weights: OrtWeights | None = OrtWeights(path, context.spec.name, context.rebuild, self._reopen)
        self._session = self._open()

    def weights(self) -> OrtWeights:
        """Access to the weights: the graph names all of them."""
        return self._weights or OrtWeights(self._path, self.spec.name, self.context.rebuild, self._reopen)

    def _reopen(self, replaced: Replaced | None) -> None:
        """Replace the session. It is closed first: two would hold all weights twice."""
        self._session = None
        if self._cuda is not None:
            self._cuda.forget()
        self._session = self._open(replaced=replaced)

    def _open(self, prepare: Callable[[Any], None] = lambda settings: None, *, replaced: Replaced | None = None) -> Any:
        """A session, with settings that `prepare` may add to."""
        import onnxruntime as ort

        settings = ort.SessionOptions()
        settings.intra_op_num_threads = self._options.threads
        settings.log_severity_level = 3
        prepare(settings)
        if self._cuda is not None:
            ort.preload_dlls()
        try:
            source = str(self._path) if replaced is None else replaced.source(settings)
            with malloc.returning():  # weights that it casts or reorders are in memory twice for a while
                return ort.InferenceSession(source, settings, providers=self._providers())
        except Exception as exc:
            if self._cuda is not None and self._cuda.graphs and "graph capture" in str(exc):
                self._cuda.graphs = False
                self._graphs_off = f"CUDA graphs are off: {str(exc).strip()}"
                return self._open(prepare, replaced=replaced)
            raise damaged(self.context, exc) from exc

    def notes(self) -> tuple[str, ...]:
        """Calls, and CUDA graphs that are off although they were requested, or missing for some shapes."""
        missed = self._cuda.uncaptured if self._cuda else 0
        graphs = (self._graphs_off, f"{missed} calls had a shape too many for a CUDA graph" * bool(missed))
        return (*super().notes(), *filter(None, graphs))

    def _providers(self) -> list[Any]:
        cuda = {} if self._cuda is None else self._cuda.provider_options()
        return [(p, cuda) if p == "CUDAExecutionProvider" else p for p in self._options.providers]

    def _run(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return self._run_on(self._session, tensors)

    def _run_on(self, session: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        try:
            if self._cuda is not None:
                return self._cuda.run(session, tensors, lambda: self._outputs(tensors), self._bind_all)
            outputs, binding = self._outputs(tensors), session.io_binding()
            self._bind_all(binding, tensors, outputs)
            session.run_with_iobinding(binding)
        except Exception as exc:
            raise self._failed(exc, tensors) from exc
        return outputs

    def _outputs(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        import torch

        shapes = self.spec.output_shapes(shapes_of(tensors))
        return {
            t.name: torch.empty(shapes[t.name], dtype=getattr(torch, t.dtype), device=self.device)
            for t in self.spec.outputs
        }

    def _bind_all(self, binding: Any, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        import numpy as np

        device = self.device.type, self.device.index or 0
        for bind, tensors in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
            for name, tensor in tensors.items():
                dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))
                bind(name, *device, dtype, tuple(tensor.shape), tensor.data_ptr())

    def _layers(self, tensors: Mapping[str, Tensor], runs: int) -> tuple[Layer, ...]:
        """The layers, timed in another session, since the profiler slows its session.

        That session has the weights of the build: times do not depend on them. One more, before it, writes the graph.
        On CUDA the runtime's profiler measures how long the host takes to launch a node: such times are left out.
        """
        from sdtrt.engines.backends.onnxruntime.profiling import layers_of

        inputs = self._prepare(tensors)
        if self.context.single_profile:
            self.close()  # two sessions would hold all weights twice
        with tempfile.TemporaryDirectory() as name:
            self._open(partial(_write_graph, Path(name) / "optimized.onnx"))
            session = self._open(partial(_write_profile, Path(name) / "profile"))
            for _ in range(runs + 1):
                self._run_on(session, inputs)
            trace = Path(session.end_profiling())
            del session
            layers = layers_of(self._path, Path(name) / "optimized.onnx", trace, runs)
        if self._cuda is None:
            return layers
        return tuple(layer.model_copy(update={"times_ms": None}) for layer in layers)

    def close(self) -> None:
        """Drop the session, and the weights, which are mapped into memory."""
        self._session = self._weights = None


def _write_graph(path: Path, settings: Any) -> None:
    settings.optimized_model_filepath = str(path)
    settings.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
    # Packed weights would be in memory together with those that are written.
    settings.add_session_config_entry("session.disable_prepacking", "1")


def _write_profile(path: Path, settings: Any) -> None:
    settings.enable_profiling = True
    settings.profile_file_prefix = str(path)


class OnnxRuntime(Backend):
    """An engine is the graph and its weights; the session is optimized for the machine that loads it."""

    name = "onnxruntime"
    input_format = "onnx"
    passes = ("fold_constants", "drop_nan_guards", "argmax_in_float", FUSION)
    options = OrtOptions

    def unavailable(self) -> Unavailable | None:
        """Whether the package is installed."""
        if not env.importable("onnxruntime"):
            return Unavailable("onnxruntime is not installed", "pip install onnxruntime")
        return None

    def sizes_key(self, spec: ComponentSpec, profiles: Sequence[ShapeProfile]) -> str:
        """A graph with dynamic axes takes any size: ranges beyond those of the build need no other engine."""
        return profile_selection.graph_sizes_key(spec, profiles)

    def version(self) -> str:
        """Version of ONNX Runtime, CPU or GPU build."""
        return env.version("onnxruntime") or env.version("onnxruntime-gpu") or "unknown"

    def device(self, options: OrtOptions) -> str:
        """The CPU's or the GPU's name, by the first provider."""
        if options.providers[0] == "CPUExecutionProvider":
            return env.cpu_name()
        gpu = self.gpu(options)
        return options.providers[0] if gpu is None else gpu[0]

    def gpu(self, options: OrtOptions) -> tuple[str, str] | None:
        """The first that NVML lists, unless the first provider is the CPU."""
        if options.providers[0] == "CPUExecutionProvider" or not nvml.gpus():
            return None
        return nvml.gpus()[0].name, nvml.gpus()[0].sm

    def passes_for(self, options: OrtOptions) -> tuple[str, ...]:
        """All, but attention stays written out for a provider that fuses it itself, such as TensorRT's."""
        fuses = FUSING.issuperset(options.providers)
        return tuple(p for p in self.passes if fuses or p != FUSION)

    def check_options(self, options: Mapping[str, Any]) -> OrtOptions:
        """Validate; BackendUnavailable when a provider is not in the installed build."""
        import onnxruntime as ort

        checked: OrtOptions = super().check_options(options)
        for provider in checked.providers:
            if provider not in ort.get_available_providers():
                raise BackendUnavailable(
                    f"this build of ONNX Runtime has no {provider}",
                    slug="provider-unavailable",
                    received=provider,
                    expected=", ".join(ort.get_available_providers()),
                    hint="pip uninstall onnxruntime && pip install onnxruntime-gpu" if "CUDA" in provider else None,
                )
        return checked

    def build(self, source: Source, options: OrtOptions, folder: Path) -> None:
        """Move graph and weights into the folder."""
        if source.onnx is None:
            raise EngineError(f"{source.spec.name} was not exported", expected="an ONNX file")
        shutil.move(source.onnx, folder / MODEL)
        weights = source.onnx.with_name(WEIGHTS)
        if weights.exists():
            shutil.move(weights, folder / WEIGHTS)

    def load(self, folder: Path, context: EngineContext) -> OrtEngine:
        """Open a session."""
        return OrtEngine(context, folder / MODEL)


BACKEND = OrtEngine.backend = OnnxRuntime()
