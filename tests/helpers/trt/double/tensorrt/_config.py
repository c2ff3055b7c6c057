"""IBuilderConfig, IOptimizationProfile, the callback of a build, and what is serialized how."""

from __future__ import annotations

from tensorrt import _logger as log
from tensorrt._cache import ITimingCache
from tensorrt._enums import (
    ENUMS,
    BuilderFlag,
    EngineCapability,
    HardwareCompatibilityLevel,
    MemoryPoolType,
    ProfilingVerbosity,
    RuntimePlatform,
    TilingOptimizationLevel,
)
from tensorrt._strict import Bound, bound
from tensorrt._values import Dims

_REFITS = [BuilderFlag.REFIT, BuilderFlag.REFIT_IDENTICAL, BuilderFlag.REFIT_INDIVIDUAL]
DEVICE_BYTES = 16 << 30


@bound
class IOptimizationProfile(Bound):
    """Ranges of the dynamic inputs."""

    def _setup(self):
        self._ranges = {}
        self._extra = 1.0

    def set_shape(self, input, min, opt, max):
        shapes = [tuple(int(d) for d in s) for s in (min, opt, max)]
        ordered = all(a <= b <= c for a, b, c in zip(*shapes, strict=False))
        if len({len(s) for s in shapes}) > 1 or not ordered or any(d < 0 for s in shapes for d in s):
            raise RuntimeError("Shape provided for min is inconsistent with other shapes.")
        self._ranges[input] = shapes

    def get_shape(self, input):
        return [Dims(s) for s in self._ranges.get(input, [])]

    @property
    def extra_memory_target(self):
        return self._extra

    @extra_memory_target.setter
    def extra_memory_target(self, value):
        self._extra = value


def _setting(name, default, allowed=lambda value: True):
    """A property that keeps what it is given, and its old value where the library would refuse without a word."""

    def get(self):
        return self._settings.get(name, default() if callable(default) else default)

    def put(self, value):
        if allowed(value):
            self._settings[name] = value
        else:
            log.error(f"IBuilderConfig: Error Code 3: API Usage Error (Parameter check failed: {name} = {value})")

    return property(get, put)


@bound
class IBuilderConfig(Bound):
    """How a network is built."""

    def _setup(self):
        self._profiles, self._cache, self._pools, self._previews = [], None, {}, {}
        self._flags = 1 << int(BuilderFlag.TF32)
        self._settings = {}

    builder_optimization_level = _setting("builder_optimization_level", 3, lambda v: 0 <= v <= 5)
    profiling_verbosity = _setting("profiling_verbosity", ProfilingVerbosity.LAYER_NAMES_ONLY)
    hardware_compatibility_level = _setting("hardware_compatibility_level", HardwareCompatibilityLevel.NONE)
    tiling_optimization_level = _setting("tiling_optimization_level", TilingOptimizationLevel.NONE)
    runtime_platform = _setting("runtime_platform", RuntimePlatform.SAME_AS_BUILD)
    engine_capability = _setting("engine_capability", EngineCapability.STANDARD)
    l2_limit_for_tiling = _setting("l2_limit_for_tiling", -1, lambda v: v >= 0)
    max_aux_streams = _setting("max_aux_streams", -1, lambda v: v >= -1)
    avg_timing_iterations = _setting("avg_timing_iterations", 1, lambda v: v > 0)
    max_num_tactics = _setting("max_num_tactics", -1)
    plugins_to_serialize = _setting("plugins_to_serialize", list)
    progress_monitor = _setting("progress_monitor", None)
    profile_stream = _setting("profile_stream", 0)
    build_route = _setting("build_route", "")

    @property
    def flags(self):
        return self._flags

    @flags.setter
    def flags(self, value):
        self._flags = int(value)

    def set_flag(self, flag):
        if flag in _REFITS and any(self.get_flag(other) for other in _REFITS if other != flag):
            for other in _REFITS:
                self.clear_flag(other)
            log.warning(
                "Unset previous flag because kREFIT, kREFIT_INDIVIDUAL and kREFIT_IDENTICAL are mutually exclusive."
            )
        self._flags |= 1 << int(flag)

    def clear_flag(self, flag):
        self._flags &= ~(1 << int(flag))

    def get_flag(self, flag):
        return bool(self._flags >> int(flag) & 1)

    def _flag_names(self) -> list[str]:
        return [name for name, flag in ENUMS["BuilderFlag"].__members__.items() if self.get_flag(flag)]

    def add_optimization_profile(self, profile):
        if not profile._ranges:
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    @property
    def num_optimization_profiles(self):
        return len(self._profiles)

    def set_memory_pool_limit(self, pool, pool_size):
        self._pools[pool.name] = int(pool_size)

    def get_memory_pool_limit(self, pool):
        return self._pools.get(pool.name, DEVICE_BYTES if pool == MemoryPoolType.WORKSPACE else 0)

    def set_preview_feature(self, feature, enable):
        self._previews[feature.name] = bool(enable)

    def get_preview_feature(self, feature):
        return self._previews.get(feature.name, False)

    def set_tactic_sources(self, tactic_sources):
        self._settings["tactic_sources"] = int(tactic_sources)
        return True

    def get_tactic_sources(self):
        return self._settings.get(
            "tactic_sources", sum(1 << int(s) for s in ENUMS["TacticSource"].__members__.values())
        )

    def create_timing_cache(self, serialized_timing_cache):
        return ITimingCache._read(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache, ignore_mismatch):
        if cache is not None and not ignore_mismatch and not cache._from_here():
            log.warning(
                "The timing cache was made by another TensorRT or on another device. The timing cache will not be used!"
            )
            return False
        self._cache = cache
        return True

    def get_timing_cache(self):
        return self._cache

    def reset(self):
        self._setup()


@bound
class IProgressMonitor(Bound):
    """To be subclassed; called from the builder's threads."""

    def phase_start(self, phase_name, parent_phase, num_steps):
        raise RuntimeError('Tried to call pure virtual function "IProgressMonitor::phaseStart"')

    def step_complete(self, phase_name, step):
        raise RuntimeError('Tried to call pure virtual function "IProgressMonitor::stepComplete"')

    def phase_finish(self, phase_name):
        raise RuntimeError('Tried to call pure virtual function "IProgressMonitor::phaseFinish"')
