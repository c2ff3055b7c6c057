"""From ONNX to a plan with TensorRT's builder; runs in a process of its own and needs neither torch nor ONNX.

One way for 10.12 to 11: a strongly typed network, which is a flag on 10 and the only kind on 11. What TensorRT answers
with False or None becomes `Failed`; setters, which answer nothing, are read back.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.tensorrt.building import timing_cache
from sdtrt.engines.backends.tensorrt.building.build_messages import Job, Stage
from sdtrt.engines.backends.tensorrt.logger import logger
from sdtrt.engines.backends.tensorrt.options import TrtOptions

if TYPE_CHECKING:
    import tensorrt as trt

_MIB = 1 << 20


class Failed(Exception):
    """The builder said no; the log says why, and `text` what is known beyond it."""

    def __init__(self, stage: Stage, text: str = "") -> None:
        super().__init__(text)
        self.stage: Stage = stage
        self.text = text


def build(job: Job, monitor: trt.IProgressMonitor) -> list[str]:
    """Write the plan of a job and return notes; raises Failed."""
    import tensorrt as trt

    builder = trt.Builder(logger())
    major = int(trt.__version__.partition(".")[0])
    flags = 0 if major >= 11 else 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    config = builder.create_builder_config()
    parser = trt.OnnxParser(network, logger())
    _parse(parser, job.onnx)
    _add_profiles(builder, network, config, job)
    _configure(config, job.options)
    if job.options.version_compatible:
        config.plugins_to_serialize = parser.get_used_vc_plugin_libraries()
    config.progress_monitor = monitor
    notes: list[str | None] = []
    cache, path = None, Path(job.timing_cache) if job.timing_cache else None
    if path is not None:
        cache, note = timing_cache.open_in(config, path)
        notes.append(note)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise Failed("build")
    temporary = Path(f"{job.plan}.tmp")
    with temporary.open("wb") as file:
        file.write(plan)
    temporary.replace(job.plan)
    if cache is not None and path is not None:
        notes.append(timing_cache.merge_into(config, cache, path))
    return [note for note in notes if note]


def _parse(parser: trt.OnnxParser, onnx: str) -> None:
    """From the file, not from its bytes: only so does the parser find the weights beside it."""
    if parser.parse_from_file(onnx):
        return
    found = []
    for index in range(parser.num_errors):
        error: trt.ParserError = parser.get_error(index)
        found.append(f"{error.node_operator()} {error.node_name()}: {error.desc()}".strip())
    raise Failed("parse", " / ".join(found[:3]))


def _add_profiles(builder: trt.Builder, network: trt.INetworkDefinition, config: trt.IBuilderConfig, job: Job) -> None:
    """Ranges for the inputs that the graph leaves open; a graph without such inputs takes no profile."""
    inputs: list[trt.ITensor] = [network.get_input(i) for i in range(network.num_inputs)]
    dynamic = {t.name: tuple(t.shape) for t in inputs if -1 in tuple(t.shape)}
    for number, ranges in enumerate(job.profiles if dynamic else ()):
        profile: trt.IOptimizationProfile = builder.create_optimization_profile()
        for name, shape in dynamic.items():
            if name not in ranges:
                raise Failed("profile", f"{name} {shape}: optimization profile is missing values")
            low, opt, high = ranges[name]
            try:
                profile.set_shape(name, low, opt, high)
            except (RuntimeError, ValueError) as exc:
                raise Failed("profile", f"{name} in profile {number}: {exc}") from exc
        if config.add_optimization_profile(profile) < 0:
            raise Failed("profile", f"profile {number} was refused: {ranges}")


def _configure(config: trt.IBuilderConfig, options: TrtOptions) -> None:
    import tensorrt as trt

    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * _MIB)
    tiling = {
        "none": trt.TilingOptimizationLevel.NONE,
        "fast": trt.TilingOptimizationLevel.FAST,
        "moderate": trt.TilingOptimizationLevel.MODERATE,
        "full": trt.TilingOptimizationLevel.FULL,
    }
    hardware = {
        "none": trt.HardwareCompatibilityLevel.NONE,
        "same_compute_capability": trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY,
        "ampere_plus": trt.HardwareCompatibilityLevel.AMPERE_PLUS,
    }
    config.builder_optimization_level = options.optimization_level
    _kept("optimization_level", config.builder_optimization_level, options.optimization_level)
    config.tiling_optimization_level = tiling[options.tiling]
    _kept("tiling", config.tiling_optimization_level, tiling[options.tiling])
    config.hardware_compatibility_level = hardware[options.hardware_compatibility]
    _kept("hardware_compatibility", config.hardware_compatibility_level, hardware[options.hardware_compatibility])
    if options.aux_streams is not None:
        config.max_aux_streams = options.aux_streams
        _kept("aux_streams", config.max_aux_streams, options.aux_streams)
    flags = {
        trt.BuilderFlag.REFIT: options.refit == "all",
        trt.BuilderFlag.REFIT_IDENTICAL: options.refit == "identical",
        trt.BuilderFlag.STRIP_PLAN: options.strip_plan,
        trt.BuilderFlag.WEIGHT_STREAMING: options.weight_streaming,
        trt.BuilderFlag.VERSION_COMPATIBLE: options.version_compatible,
    }
    for flag, wanted in flags.items():
        if wanted:
            config.set_flag(flag)
    if options.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)


def _kept(name: str, found: Any, wanted: Any) -> None:
    """Properties swallow a refusal: the old value then still stands there."""
    if found != wanted:
        raise Failed("option", f"{name} {wanted} was refused, it stays {found}")
