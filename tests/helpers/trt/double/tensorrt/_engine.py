"""The engine: what a plan becomes, asked for names, shapes, types and memory."""

from __future__ import annotations

import weakref

from tensorrt import _logger as log
from tensorrt._config import DEVICE_BYTES
from tensorrt._context import ALIGNMENT, IExecutionContext
from tensorrt._enums import (
    ENUMS,
    ExecutionContextAllocationStrategy,
    HardwareCompatibilityLevel,
    ProfilingVerbosity,
    TensorIOMode,
    TensorLocation,
)
from tensorrt._executor import Executor
from tensorrt._inspector import EngineInspector
from tensorrt._layers import layers_of
from tensorrt._machine import fault
from tensorrt._plan import Plan
from tensorrt._strict import Bound, bound
from tensorrt._values import Dims, IHostMemory


@bound
class IRuntimeConfig(Bound):
    """How a context is made."""

    def _setup(self):
        self._strategy = ExecutionContextAllocationStrategy.STATIC

    def get_execution_context_allocation_strategy(self):
        return self._strategy

    def set_execution_context_allocation_strategy(self, strategy=ExecutionContextAllocationStrategy.STATIC):
        self._strategy = strategy


@bound
class ISerializationConfig(Bound):
    """How an engine is written: without its weights where it has been stripped, unless told otherwise."""

    def _setup(self, flags=0):
        self._flags = flags

    @property
    def flags(self):
        return self._flags

    @flags.setter
    def flags(self, value):
        self._flags = int(value)

    def set_flag(self, flag):
        self._flags |= 1 << int(flag)
        return True

    def clear_flag(self, flag):
        self._flags &= ~(1 << int(flag))
        return True

    def get_flag(self, flag):
        return bool(self._flags >> int(flag) & 1)


@bound
class ICudaEngine(Bound):
    """A loaded plan."""

    def _setup(self, plan, runtime):
        self._plan, self._runtime = plan, runtime
        self._executor = Executor(plan.model)
        self._contexts, self._budget = 0, None
        self._filled = not plan.stripped
        self._cached_layers = None

    # ------------------------------------------------------------------------------------ names, shapes, types

    def _names(self):
        return [*self._executor.inputs, *self._executor.outputs]

    @property
    def num_io_tensors(self):
        return len(self._names())

    def get_tensor_name(self, index):
        return self._names()[index]

    def __getitem__(self, index):
        return self._names()[index]

    def get_tensor_mode(self, name):
        if name in self._executor.inputs:
            return TensorIOMode.INPUT
        return TensorIOMode.OUTPUT if name in self._executor.outputs else TensorIOMode.NONE

    def get_tensor_dtype(self, name):
        return self._executor.dtype(name)

    def get_tensor_shape(self, name):
        return Dims(self._executor.static_shape(name))

    def get_tensor_location(self, name):
        return TensorLocation.DEVICE

    def get_tensor_format_desc(self, name, profile_index=0):
        return f"Row major linear {self._executor.dtype(name).name} format (kLINEAR)"

    def get_tensor_profile_shape(self, name, profile_index):
        if name not in self._executor.inputs or not 0 <= profile_index < len(self._plan.profiles):
            log.error("ICudaEngine::getProfileShape: Error Code 3: API Usage Error (Parameter check failed)")
            return []
        static = self._executor.static_shape(name)
        return [Dims(s) for s in self._plan.profiles[profile_index].get(name, [static] * 3)]

    def is_shape_inference_io(self, name):
        return False

    def is_debug_tensor(self, name):
        return False

    # ------------------------------------------------------------------------------------ facts

    name = property(lambda self: self._plan.name)
    num_layers = property(lambda self: len(self._layers()))
    num_optimization_profiles = property(lambda self: len(self._plan.profiles))
    num_aux_streams = property(lambda self: self._plan.aux_streams)
    refittable = property(lambda self: bool(self._plan.refittable))
    profiling_verbosity = property(lambda self: getattr(ProfilingVerbosity, self._plan.verbosity))
    hardware_compatibility_level = property(lambda self: getattr(HardwareCompatibilityLevel, self._plan.hardware))
    tactic_sources = property(lambda self: 0)
    has_implicit_batch_dimension = property(lambda self: False)

    def _layers(self):
        if self._cached_layers is None:
            self._cached_layers = layers_of(self._plan.model)
        return self._cached_layers

    def _suffix(self, profile: int, layer) -> str:
        return f" [profile {profile}]" if profile else ""

    def _weight_bytes(self) -> int:
        return sum(len(t.raw_data) for t in self._plan.model.graph.initializer)

    def get_engine_stat(self, stat=None):
        stats = ENUMS["EngineStat"]
        stat = stats.TOTAL_WEIGHTS_SIZE if stat is None else stat
        if stat == stats.STRIPPED_WEIGHTS_SIZE:
            return self._weight_bytes() if self._plan.stripped else 0
        return self._weight_bytes()

    # ------------------------------------------------------------------------------------ memory

    def _largest(self, profile: int):
        shapes = {n: self._executor.static_shape(n) for n in self._executor.inputs}
        return shapes | {n: tuple(r[2]) for n, r in self._plan.profiles[profile].items()}

    def get_device_memory_size_for_profile_v2(self, profile_index):
        shapes = self._largest(profile_index)
        used = sum(self._executor.nbytes(n, s) for n, s in shapes.items())
        used = -(-used * 2 // ALIGNMENT) * ALIGNMENT + ALIGNMENT
        return used + (self.weight_streaming_scratch_memory_size if self._streaming() else 0)

    @property
    def device_memory_size_v2(self):
        return max(map(self.get_device_memory_size_for_profile_v2, range(self.num_optimization_profiles)))

    get_device_memory_size_for_profile = get_device_memory_size_for_profile_v2
    device_memory_size = property(lambda self: self.device_memory_size_v2)

    @property
    def streamable_weights_size(self):
        return self._weight_bytes() if "WEIGHT_STREAMING" in self._plan.flags else 0

    @property
    def weight_streaming_scratch_memory_size(self):
        return 1 << 16 if self.streamable_weights_size else 0

    @property
    def weight_streaming_budget_v2(self):
        return self.streamable_weights_size if self._budget is None else self._budget

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, value):
        if self._contexts or not self.streamable_weights_size or value < 0:
            log.error(
                "ICudaEngine::setWeightStreamingBudgetV2: Error Code 3: API Usage Error (Parameter check failed, "
                "condition: the engine streams weights and has no active context.)"
            )
        else:
            self._budget = min(int(value), self.streamable_weights_size)

    def get_weight_streaming_automatic_budget(self):
        return min(self.streamable_weights_size, DEVICE_BYTES)

    def _streaming(self) -> bool:
        return self.weight_streaming_budget_v2 < self.streamable_weights_size

    # ------------------------------------------------------------------------------------ what is made of it

    def create_execution_context(self, strategy=None, runtime_config=None):
        given = runtime_config if runtime_config is not None else strategy
        if isinstance(given, IRuntimeConfig):
            given = given._strategy
        if fault("no-context") or not self._filled:
            cause = "its weights have been stripped and not refitted" if not self._filled else "out of memory"
            log.error(f"ICudaEngine::createExecutionContext: Error Code 2: OutOfMemory ({cause})")
            return None
        return IExecutionContext._make(self, given or ExecutionContextAllocationStrategy.STATIC)

    def create_execution_context_without_device_memory(self):
        return self.create_execution_context(ExecutionContextAllocationStrategy.USER_MANAGED)

    def create_runtime_config(self):
        return IRuntimeConfig._make()

    def create_serialization_config(self):
        excluded = int(ENUMS["SerializationFlag"].EXCLUDE_WEIGHTS)
        return ISerializationConfig._make(1 << excluded if self._plan.stripped else 0)

    def create_engine_inspector(self):
        return EngineInspector._make(weakref.proxy(self))

    def serialize(self):
        return self.serialize_with_config(self.create_serialization_config())

    def serialize_with_config(self, config):
        from tensorrt._builder import _stripped

        flags = ENUMS["SerializationFlag"]
        bare = config.get_flag(flags.EXCLUDE_WEIGHTS)
        keeps_refit = bare or (hasattr(flags, "INCLUDE_REFIT") and config.get_flag(flags.INCLUDE_REFIT))
        keeps_refit = keeps_refit or not self._plan.stripped
        facts = vars(self._plan) | {"model": _stripped(self._plan.model) if bare else self._plan.model}
        facts |= {"stripped": bare, "refittable": self._plan.refittable if keeps_refit else []}
        return IHostMemory._make(Plan(**facts).save())

    def _refit(self, model) -> None:
        """Other weights: what is captured keeps the old ones."""
        self._plan.model = model
        self._executor = Executor(model)
        self._filled = True
