"""TensorRT 10.12 to 11: plans that are built in a process of their own and run on torch's tensors.

Opset 20 with decomposed attention: scaled queries and keys, MatMul, Softmax, MatMul is the form that TensorRT fuses in
every one of these releases. Networks are strongly typed, so precision is the graph's.

Polygraphy is not used here, though it covers a part of this: its network loader is weakly typed unless told otherwise,
its builder configuration clears TF32 and gives an input without a range the size 1 in silence, its engine loader lets a
plan run host code and takes the start of a file for a failure to seek, and its runner, by its own words not made for
production, returns buffers of its own, without CUDA graphs, shared activations or the caller's stream. The passes that
come before use it to fold constants, which it does well.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sdtrt.engines.backends.tensorrt import cuda
from sdtrt.engines.backends.tensorrt.building import isolated_build, timing_cache
from sdtrt.engines.backends.tensorrt.building.build_messages import Job
from sdtrt.engines.backends.tensorrt.cuda import Device
from sdtrt.engines.backends.tensorrt.options import RUN_OPTIONS, TrtOptions
from sdtrt.engines.backends.tensorrt.profiling import trtexec_command
from sdtrt.engines.backends.tensorrt.profiling.layer_times import measure
from sdtrt.engines.backends.tensorrt.profiling.trtexec_files import to_plan
from sdtrt.engines.backends.tensorrt.refit import TrtWeights
from sdtrt.engines.backends.tensorrt.running import deserialize, optimization_profiles, stream_memory
from sdtrt.engines.backends.tensorrt.running.plan_file import PLAN, RECORD, PlanRecord, check_gpu, numbers, read_record
from sdtrt.engines.backends.tensorrt.running.session import Session
from sdtrt.engines.base import Backend, Engine, EngineContext, Source, Unavailable, damaged
from sdtrt.errors import BackendUnavailable, ConfigError, EngineError, Unsupported
from sdtrt.plan.layers import Layer, Plan
from sdtrt.shapes.profile_selection import Ranges
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile
from sdtrt.system import env
from sdtrt.system.files import sha256, write_text

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sdtrt.costs import GraphCosts

# Beside the plan of an engine whose weights can be put in again; the second name is inside the first file.
MODEL = "model.onnx"
WEIGHTS = "model.onnx.data"
OLDEST = (10, 12)


class TrtEngine(Engine):
    """A session on the plan of one component."""

    def __init__(self, context: EngineContext, folder: Path, device: Device) -> None:
        self.options: TrtOptions = context.options
        super().__init__(context, cuda.cuda.device(self.options.gpu))
        self.folder, self._gpu = folder, device
        self._weights: TrtWeights | None = None
        self.session = _open(folder / PLAN, self.options, self.device, context.spec.name, context.rebuild)
        if {*self.session.inputs} != {t.name for t in context.spec.inputs}:
            self.session.close()
            raise damaged(context, f"it has the inputs {', '.join(self.session.inputs)}")

    @property
    def seconds(self) -> float:
        """Time on the GPU of all calls so far; asking waits for them."""
        return self.session.clock.total_ms() / 1e3

    def profile(
        self, tensors: Mapping[str, Tensor], sizes: Mapping[str, int], runs: int, folder: Path | None = None
    ) -> Plan:
        """Time whole runs and layers; `folder` gets the files that trtexec and TREx name."""
        ready = self._prepare(tensors)
        found = measure(self.session, ready, runs, self.options.profile_warmup, self._gpu.uuid)
        plan = to_plan(found, self._gpu, self.spec.name, self.backend.version(), folder, PLAN)
        notes = (*plan.notes, *self._timed_in(tensors))
        return plan.model_copy(update={"sizes": dict(sizes), "precision": self.spec.dtype, "notes": notes})

    def notes(self) -> tuple[str, ...]:
        """What a user should know of the calls so far: shapes that run without a CUDA graph, and why."""
        return (*super().notes(), *filter(None, (str(self.session.stats),)))

    def context_bytes(self) -> tuple[int | None, ...]:
        """The block of activation memory, as the plan has it for each profile."""
        places = optimization_profiles.places(self.spec, self.context.profiles, self.options.guided_only)
        return tuple(self.session.context_bytes[place] for place in places)

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
        return optimization_profiles.shapes(self.spec.inputs, profile, self.options.guided_only)

    def _run(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs = self.session.run(tensors)
        return {t.name: outputs[t.name] for t in self.spec.outputs}

    def _layers(self, tensors: Mapping[str, Tensor], runs: int) -> tuple[Layer, ...]:
        return self.profile(tensors, {}, runs).layers


class TensorRt(Backend):
    """The backend."""

    name = "tensorrt"
    input_format = "onnx"
    passes = ("fold_constants", "drop_nan_guards")
    native_code = True  # a plan holds compiled kernels, and TensorRT takes it as it comes
    options = TrtOptions
    run_options = RUN_OPTIONS

    def unavailable(self) -> Unavailable | None:
        """Missing, too old, without its libraries, or without a GPU."""
        if not env.importable("tensorrt"):
            return Unavailable("tensorrt is not installed", "pip install tensorrt")
        try:
            version = self.version()
        except (ImportError, OSError) as exc:
            return Unavailable(f"tensorrt cannot be imported: {exc}", "pip install --force-reinstall tensorrt")
        if numbers(version)[:2] < OLDEST:
            return Unavailable(f"TensorRT {version} is too old", "pip install 'tensorrt>=10.12'")
        if not cuda.cuda.available():
            return Unavailable("torch finds no NVIDIA GPU", "nvidia-smi must list one; install torch's CUDA build")
        return None

    def version(self) -> str:
        """Version of the library that runs."""
        import tensorrt as trt

        return str(trt.__version__)

    def device(self, options: TrtOptions) -> str:
        """Name and compute capability of the GPU."""
        return str(_device(options.gpu))

    def gpu(self, options: TrtOptions) -> tuple[str, str] | None:
        """As CUDA describes it."""
        found = cuda.cuda.describe(options.gpu)
        return None if found is None else (found.name, found.sm)

    def join(self, plan: Plan, priced: GraphCosts) -> Plan:
        """As the reader of TensorRT's files does it: copies find the layer they serve, sizes their tensors."""
        from sdtrt.readers.formats.tensorrt import reader

        return reader.join(plan, priced)

    def build(self, source: Source, options: TrtOptions, folder: Path) -> None:
        """Build the plan in a process of its own and write its record; BuildError says what TensorRT's log tells."""
        if source.onnx is None:
            raise EngineError(f"{source.spec.name} was not exported", expected="an ONNX file")
        device, version = _device(options.gpu), self.version()
        cache = timing_cache.path_of(options.timing_cache_folder, version, device.name, device.sm)
        job = Job(
            onnx=str(source.onnx),
            plan=str(folder / PLAN),
            profiles=optimization_profiles.ranges(source.spec, source.profiles, options.guided_only),
            options=options,
            timing_cache=str(cache) if options.timing_cache else None,
        )
        cuda.cuda.release_cached_memory()
        started = time.perf_counter()
        notes = isolated_build.build(job, source.spec.name, EngineContext.rebuild, source.report)
        record = PlanRecord(
            tensorrt=version,
            gpu=device.name,
            sm=device.sm,
            onnx_sha256=sha256(source.onnx),
            profiles=job.profiles,
            version_compatible=options.version_compatible,
            hardware_compatibility=options.hardware_compatibility,
            refit=options.refit,
            stripped=options.strip_plan,
            seconds=round(time.perf_counter() - started, 1),
            notes=tuple(notes),
        )
        write_text(folder / RECORD, record.model_dump_json(indent=1) + "\n")
        if options.keep_onnx or options.strip_plan or options.refit != "none":
            _keep_model(source.onnx, folder)

    def load(self, folder: Path, context: EngineContext) -> TrtEngine:
        """Check that the plan is of this TensorRT and GPU, and deserialize it."""
        device = _device(context.options.gpu)
        try:
            record = read_record(folder, context.rebuild)
        except EngineError as exc:
            raise damaged(context, f"{exc.message}: {exc.received}") from exc
        check_gpu(record, device, context.rebuild)
        return TrtEngine(context, folder, device)


def profile_plan_file(
    path: Path, shapes: Mapping[str, tuple[int, ...]], runs: int, out_folder: Path, gpu: int = 0
) -> Plan:
    """Time any plan file, whoever built it, and write `<file>.graph.json` and the others into `out_folder`.

    `shapes` are for the inputs that vary; an input that is left out has the best shape of the first profile. Raises
    EngineError for a plan of another TensorRT, ShapeError when no profile takes the shapes, ConfigError for an unknown
    input.
    """
    options = TrtOptions(gpu=gpu)
    device, where = _device(gpu), cuda.cuda.device(gpu)
    session = _open(path, options, where, path.name, f"trtexec --saveEngine={path.name}")
    try:
        if unknown := sorted(shapes.keys() - set(session.inputs)):
            raise ConfigError(
                f"{path.name} has no such input",
                slug="plan-input",
                received=", ".join(unknown),
                expected=" or ".join(optimization_profiles.describe(p) for p in session.profiles),
            )
        sizes = {n: tuple(shapes.get(n, session.profiles[0][n][1])) for n in session.inputs}
        tensors = {n: _random(session.dtypes[n], shape, where) for n, shape in sizes.items()}
        found = measure(session, tensors, runs, options.profile_warmup, device.uuid)
        return to_plan(found, device, path.stem, BACKEND.version(), out_folder, path.name)
    finally:
        session.close()


def trtexec(
    spec: ComponentSpec, profiles: tuple[ShapeProfile, ...], options: TrtOptions, runs: int, major: int
) -> tuple[str, str]:
    """The commands of trtexec `major` (10 or 11) that build and that time what `sdtrt build` would."""
    wanted = optimization_profiles.ranges(spec, profiles, options.guided_only)
    # What has one size in all profiles is a constant in the graph, and trtexec refuses a range for it.
    shapes = {n: {s for p in wanted for s in p[n]} for n in wanted[0]}
    varying = tuple({n: s for n, s in p.items() if len(shapes[n]) > 1} for p in wanted)
    build = trtexec_command.build(spec.name, varying if varying[0] else (), options, major)
    return build, trtexec_command.run(spec.name, varying if varying[0] else (), options, runs, major)


def _open(path: Path, options: TrtOptions, device: torch.device, what: str, rebuild: str) -> Session:
    onnx = path.with_name(MODEL)
    with cuda.cuda.use(stream_memory.lane(device).stream):  # makes the device the thread's own
        engine = deserialize.load(path, options, what, rebuild, onnx if options.strip_plan else None)
        return Session(engine, device, options, what, rebuild)


def _device(gpu: int) -> Device:
    found = cuda.cuda.describe(gpu)
    if found is None:
        raise BackendUnavailable(
            "there is no such GPU",
            slug="gpu-missing",
            received=f"gpu {gpu}",
            expected="a number that nvidia-smi lists, counted from 0, within CUDA_VISIBLE_DEVICES",
            hint="choose another: options: {gpu: 0}",
        )
    return found


def _keep_model(onnx: Path, folder: Path) -> None:
    shutil.move(onnx, folder / MODEL)
    weights = onnx.with_name(WEIGHTS)
    if weights.exists():
        shutil.move(weights, folder / WEIGHTS)


def _random(dtype: torch.dtype, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Values that no model chokes on: normal noise, small numbers for what counts or indexes."""
    import torch

    if dtype.is_floating_point:
        return torch.randn(shape, device=device).to(dtype)
    return torch.randint(0, 2, shape, device=device).to(dtype)


BACKEND = TrtEngine.backend = TensorRt()
