"""The backend for TensorRT 10.12 to 11: plans are built in a separate process and run on torch's tensors.

The ONNX files have opset 20 with decomposed attention: all of these releases fuse scaled queries and keys, MatMul,
Softmax, MatMul. Networks are strongly typed, so precision is a property of the graph.

Polygraphy is used by the graph passes, to fold constants, but not here: its network loader is weakly typed by default,
its builder configuration clears TF32 and gives an input without a range the size 1 without a message, its engine loader
lets a plan run host code and takes the start of a file for a failure to seek, and its runner, by its own documentation
not made for production, returns its own buffers, without CUDA graphs, shared activations or the caller's stream.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sdtrt.engines.backends.tensorrt import cuda
from sdtrt.engines.backends.tensorrt.building import isolated_build, timing_cache
from sdtrt.engines.backends.tensorrt.building.build_messages import BuildJob
from sdtrt.engines.backends.tensorrt.cuda import Device
from sdtrt.engines.backends.tensorrt.error_table import ErrorContext
from sdtrt.engines.backends.tensorrt.options import RUN_OPTIONS, TrtOptions
from sdtrt.engines.backends.tensorrt.profiling.layer_times import time_engine
from sdtrt.engines.backends.tensorrt.profiling.trtexec_files import to_plan
from sdtrt.engines.backends.tensorrt.refit import TrtWeights
from sdtrt.engines.backends.tensorrt.running import deserialize, optimization_profiles, plan_file, stream_memory
from sdtrt.engines.backends.tensorrt.running.session import Session
from sdtrt.engines.base import Backend, Engine, EngineContext, Source, Unavailable, damaged
from sdtrt.errors import BackendUnavailable, ConfigError, EngineError, Unsupported
from sdtrt.plan.layers import Layer, Plan
from sdtrt.shapes.profile_selection import Ranges
from sdtrt.shapes.spec import ShapeProfile
from sdtrt.system import env
from sdtrt.system.files import sha256, write_text

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sdtrt.costs import GraphCosts

# Beside the plan of an engine whose weights can be replaced; the first file refers to the second by name.
MODEL = "model.onnx"
WEIGHTS = "model.onnx.data"
OLDEST = (10, 12)


class TrtEngine(Engine):
    """A session on the plan of one component."""

    def __init__(self, context: EngineContext, folder: Path, device: Device) -> None:
        self.options: TrtOptions = context.options
        super().__init__(context, cuda.runtime.device(self.options.gpu))
        self.folder, self._gpu = folder, device
        self._weights: TrtWeights | None = None
        error_context = ErrorContext(context.spec.name, context.rebuild)
        self.session = _open_session(folder / plan_file.PLAN, self.options, self.device, error_context)
        if {*self.session.inputs} != {t.name for t in context.spec.inputs}:
            self.session.close()
            raise damaged(context, f"it has the inputs {', '.join(self.session.inputs)}")

    @property
    def seconds(self) -> float:
        """GPU time of all calls so far; reading it waits for them."""
        return self.session.timer.total_ms() / 1e3

    def profile(
        self, tensors: Mapping[str, Tensor], sizes: Mapping[str, int], runs: int, folder: Path | None = None
    ) -> Plan:
        """Time whole runs and layers.

        Args:
            tensors: the inputs by name.
            sizes: the values of the symbols in their shapes, for the plan.
            runs: the number of timed runs, after `profile_warmup` others.
            folder: receives the files of trtexec and TREx; None writes none.
        """
        ready = self._prepare(tensors)
        timings = time_engine(self.session, ready, runs, self.options.profile_warmup, self._gpu)
        plan = to_plan(timings, self.spec.name, self.backend.version(), folder, plan_file.PLAN)
        notes = (*plan.notes, *self._timed_in(tensors))
        return plan.model_copy(update={"sizes": dict(sizes), "precision": self.spec.dtype, "notes": notes})

    def notes(self) -> tuple[str, ...]:
        """Notes on the calls so far; they include why shapes run without a CUDA graph."""
        return (*super().notes(), *filter(None, (str(self.session.stats),)))

    def context_bytes(self) -> tuple[int | None, ...]:
        """Bytes of activation memory by profile, from the plan."""
        indices = optimization_profiles.plan_indices(self.spec, self.context.profiles, self.options.guided_only)
        return tuple(self.session.context_bytes[index] for index in indices)

    def weights(self) -> TrtWeights:
        """Access to the weights of a plan that was built with refit: all."""
        if self.options.refit != "all":
            raise Unsupported(
                f"the engine of {self.spec.name} cannot take other weights",
                slug="refit-unsupported",
                received=f"refit: {self.options.refit}",
                expected="refit: all",
                hint=f"rebuild with options: {{refit: all}}: {self.context.rebuild}",
            )
        if self._weights is None:
            self._weights = TrtWeights(self.session, self.folder / MODEL, self.options.refit_check)
        return self._weights

    def close(self) -> None:
        """Free the plan, its contexts and graphs."""
        self.session.close()

    def _ranges(self, profile: ShapeProfile) -> Ranges:
        return optimization_profiles.input_ranges(self.spec.inputs, profile, self.options.guided_only)

    def _run(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs = self.session.run(tensors)
        return {t.name: outputs[t.name] for t in self.spec.outputs}

    def _layers(self, tensors: Mapping[str, Tensor], runs: int) -> tuple[Layer, ...]:
        return self.profile(tensors, {}, runs).layers


class TensorRt(Backend):
    """Builds plans with TensorRT and loads them."""

    name = "tensorrt"
    input_format = "onnx"
    passes = ("fold_constants", "drop_nan_guards")
    native_code = True  # a plan holds compiled kernels, which TensorRT runs without a check
    options = TrtOptions
    run_options = RUN_OPTIONS

    def unavailable(self) -> Unavailable | None:
        """Why TensorRT cannot run: it is missing, too old or without its libraries, or there is no GPU."""
        if not env.importable("tensorrt"):
            return Unavailable("tensorrt is not installed", "pip install tensorrt")
        try:
            version = self.version()
        except (ImportError, OSError) as exc:
            return Unavailable(f"tensorrt cannot be imported: {exc}", "pip install --force-reinstall tensorrt")
        if plan_file.parse_version(version)[:2] < OLDEST:
            return Unavailable(f"TensorRT {version} is too old", "pip install 'tensorrt>=10.12'")
        if not cuda.runtime.available():
            return Unavailable("torch finds no NVIDIA GPU", "nvidia-smi must list one; install torch's CUDA build")
        return None

    def version(self) -> str:
        """Version of the installed library."""
        import tensorrt as trt

        return str(trt.__version__)

    def device(self, options: TrtOptions) -> str:
        """Name and compute capability of the GPU."""
        return str(_device(options.gpu))

    def gpu(self, options: TrtOptions) -> tuple[str, str] | None:
        """Name and compute capability of the GPU; None when there is none."""
        device = cuda.runtime.describe(options.gpu)
        return None if device is None else (device.name, device.sm)

    def join(self, plan: Plan, priced: GraphCosts) -> Plan:
        """Join with the graph's costs as the reader of TensorRT's files does."""
        from sdtrt.readers.formats.tensorrt import assign

        return assign.join(plan, priced)

    def build(self, source: Source, options: TrtOptions, folder: Path) -> None:
        """Build the plan in a separate process and write its record; BuildError has the cause from TensorRT's log."""
        if source.onnx is None:
            raise EngineError(f"{source.spec.name} was not exported", expected="an ONNX file")
        device, version = _device(options.gpu), self.version()
        cache = timing_cache.cache_path(options.timing_cache_folder, version, device)
        job = BuildJob(
            onnx=str(source.onnx),
            plan=str(folder / plan_file.PLAN),
            profiles=optimization_profiles.plan_profiles(source.spec, source.profiles, options.guided_only),
            options=options,
            timing_cache=str(cache) if options.timing_cache else None,
        )
        cuda.runtime.release_cached_memory()
        started = time.perf_counter()
        error_context = ErrorContext(source.spec.name, EngineContext.rebuild)
        notes = isolated_build.build_in_subprocess(job, error_context, source.report)
        record = plan_file.PlanRecord(
            tensorrt=version,
            gpu=device.name,
            sm=device.sm,
            onnx_sha256=sha256(source.onnx),
            profiles=job.profiles,
            **options.model_dump(include={"version_compatible", "hardware_compatibility", "refit"}),
            stripped=options.strip_plan,
            seconds=round(time.perf_counter() - started, 1),
            notes=tuple(notes),
        )
        write_text(folder / plan_file.RECORD, record.model_dump_json(indent=1) + "\n")
        if options.keep_onnx or options.strip_plan or options.refit != "none":
            _move_onnx(source.onnx, folder)

    def load(self, folder: Path, context: EngineContext) -> TrtEngine:
        """Check the GPU and the TensorRT version of a plan, and deserialize it."""
        options: TrtOptions = context.options
        device = _device(options.gpu)
        try:
            record = plan_file.read_record(folder, context.rebuild)
        except EngineError as exc:
            raise damaged(context, f"{exc.message}: {exc.received}") from exc
        plan_file.check_gpu(record, device, context.rebuild)
        return TrtEngine(context, folder, device)


def profile_plan_file(
    path: Path, shapes: Mapping[str, tuple[int, ...]], runs: int, out_folder: Path, gpu: int = 0
) -> Plan:
    """Time any plan file and write `<file>.graph.json` and the other files of trtexec and TREx.

    Args:
        path: the plan file; sdtrt need not have built it.
        shapes: shapes of inputs by name; the others have the opt shape of the first profile.
        runs: the number of timed runs.
        out_folder: receives the files.
        gpu: number of the GPU, as CUDA counts them.

    Raises:
        EngineError: the plan is damaged or of another TensorRT.
        ShapeError: no optimization profile takes the shapes.
        ConfigError: an input is unknown.
    """
    options = TrtOptions(gpu=gpu)
    device, torch_device = _device(gpu), cuda.runtime.device(gpu)
    session = _open_session(path, options, torch_device, ErrorContext(path.name, f"trtexec --saveEngine={path.name}"))
    try:
        if unknown := sorted(shapes.keys() - set(session.inputs)):
            raise ConfigError(
                f"{path.name} has no such input",
                slug="plan-input",
                received=", ".join(unknown),
                expected=" or ".join(optimization_profiles.describe(p) for p in session.profiles),
            )
        sizes = {n: tuple(shapes.get(n, session.profiles[0][n][1])) for n in session.inputs}
        tensors = {n: _random_tensor(session.dtypes[n], shape, torch_device) for n, shape in sizes.items()}
        timings = time_engine(session, tensors, runs, options.profile_warmup, device)
        return to_plan(timings, path.stem, BACKEND.version(), out_folder, path.name)
    finally:
        session.close()


def _open_session(path: Path, options: TrtOptions, device: torch.device, error_context: ErrorContext) -> Session:
    onnx = path.with_name(MODEL) if options.strip_plan else None
    with cuda.runtime.use(stream_memory.stream_context(device).stream):  # makes the device current in this thread
        engine = deserialize.deserialize_plan(path, options, error_context, onnx)
        return Session(engine, device, options, error_context)


def _device(gpu: int) -> Device:
    device = cuda.runtime.describe(gpu)
    if device is None:
        raise BackendUnavailable(
            "there is no such GPU",
            slug="gpu-missing",
            received=f"gpu {gpu}",
            expected="a number that nvidia-smi lists, counted from 0, within CUDA_VISIBLE_DEVICES",
            hint="choose another: options: {gpu: 0}",
        )
    return device


def _move_onnx(onnx: Path, folder: Path) -> None:
    shutil.move(onnx, folder / MODEL)
    if (weights := onnx.with_name(WEIGHTS)).exists():
        shutil.move(weights, folder / WEIGHTS)


def _random_tensor(dtype: torch.dtype, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Values that are valid for any model: normal noise, and 0 or 1 for integers, which may be indices."""
    import torch

    if dtype.is_floating_point:
        return torch.randn(shape, device=device).to(dtype)
    return torch.randint(0, 2, shape, device=device).to(dtype)


BACKEND = TrtEngine.backend = TensorRt()
