"""From an ONNX file to a plan with TensorRT's builder; runs in the build process and needs neither torch nor ONNX.

Networks are strongly typed in all releases: that is a flag in 10.12 and later, and the only kind in 11. A call that
returns False or None raises `BuildFailed`; properties, which return nothing, are read back.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.tensorrt.building import timing_cache
from sdtrt.engines.backends.tensorrt.building.build_messages import BuildJob, Stage
from sdtrt.engines.backends.tensorrt.logger import logger
from sdtrt.engines.backends.tensorrt.options import TrtOptions
from sdtrt.system.files import write_bytes

if TYPE_CHECKING:
    import tensorrt as trt

_MIB = 1 << 20


class BuildFailed(Exception):
    """A stage of the build failed; `text` adds to what TensorRT logged."""

    def __init__(self, stage: Stage, text: str = "") -> None:
        super().__init__(text)
        self.stage: Stage = stage
        self.text = text


def build_plan(job: BuildJob, monitor: trt.IProgressMonitor) -> list[str]:
    """Build the plan of a job, write it, and return notes; raises BuildFailed."""
    import tensorrt as trt

    builder = trt.Builder(logger())
    major = int(trt.__version__.partition(".")[0])
    flags = 0 if major >= 11 else 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    config = builder.create_builder_config()
    parser = trt.OnnxParser(network, logger())
    _parse_onnx(parser, job.onnx)
    _add_optimization_profiles(builder, network, config, job)
    _apply_options(config, job.options)
    if job.options.version_compatible:
        config.plugins_to_serialize = parser.get_used_vc_plugin_libraries()
    config.progress_monitor = monitor
    notes: list[str | None] = []
    cache, path = None, Path(job.timing_cache) if job.timing_cache else None
    if path is not None:
        cache, note = timing_cache.load_into(config, path)
        notes.append(note)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildFailed("build")
    write_bytes(Path(job.plan), plan)
    if cache is not None and path is not None:
        notes.append(timing_cache.merge_and_save(config, cache, path))
    return [note for note in notes if note]


def _parse_onnx(parser: trt.OnnxParser, onnx: str) -> None:
    """Parse from the file, not from its bytes: the parser then finds the external weights beside it."""
    if parser.parse_from_file(onnx):
        return
    messages = []
    for index in range(parser.num_errors):
        error: trt.ParserError = parser.get_error(index)
        messages.append(f"{error.node_operator()} {error.node_name()}: {error.desc()}".strip())
    raise BuildFailed("parse", " / ".join(messages[:3]))


def _add_optimization_profiles(
    builder: trt.Builder, network: trt.INetworkDefinition, config: trt.IBuilderConfig, job: BuildJob
) -> None:
    """Add shape ranges of the dynamic inputs; a graph without dynamic inputs takes no profile."""
    inputs: list[trt.ITensor] = [network.get_input(i) for i in range(network.num_inputs)]
    dynamic = {t.name: tuple(t.shape) for t in inputs if -1 in tuple(t.shape)}
    for number, ranges in enumerate(job.profiles if dynamic else ()):
        profile: trt.IOptimizationProfile = builder.create_optimization_profile()
        for name, shape in dynamic.items():
            if name not in ranges:
                raise BuildFailed("profile", f"{name} {shape}: optimization profile is missing values")
            low, opt, high = ranges[name]
            try:
                profile.set_shape(name, low, opt, high)
            except (RuntimeError, ValueError) as exc:
                raise BuildFailed("profile", f"{name} in profile {number}: {exc}") from exc
        if config.add_optimization_profile(profile) < 0:
            raise BuildFailed("profile", f"profile {number} was refused: {ranges}")


def _apply_options(config: trt.IBuilderConfig, options: TrtOptions) -> None:
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
    _check_option("optimization_level", config.builder_optimization_level, options.optimization_level)
    config.tiling_optimization_level = tiling[options.tiling]
    _check_option("tiling", config.tiling_optimization_level, tiling[options.tiling])
    level = hardware[options.hardware_compatibility]
    config.hardware_compatibility_level = level
    _check_option("hardware_compatibility", config.hardware_compatibility_level, level)
    if options.aux_streams is not None:
        config.max_aux_streams = options.aux_streams
        _check_option("aux_streams", config.max_aux_streams, options.aux_streams)
    flags = {
        trt.BuilderFlag.REFIT: options.refit == "all",
        trt.BuilderFlag.REFIT_IDENTICAL: options.refit == "identical",
        trt.BuilderFlag.STRIP_PLAN: options.strip_plan,
        trt.BuilderFlag.WEIGHT_STREAMING: options.weight_streaming,
        trt.BuilderFlag.VERSION_COMPATIBLE: options.version_compatible,
    }
    for flag, enabled in flags.items():
        if enabled:
            config.set_flag(flag)
    if options.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)


def _check_option(name: str, current: Any, requested: Any) -> None:
    """A property that refuses a value keeps the old one and raises nothing."""
    if current != requested:
        raise BuildFailed("option", f"{name} {requested} was refused, it stays {current}")
