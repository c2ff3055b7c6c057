"""The execution context: state of one caller, checked as the real one checks it. `_enqueue` is what a run does."""

from __future__ import annotations

import threading

import numpy as np

from tensorrt import _capture, _enqueue
from tensorrt import _logger as log
from tensorrt._enums import ExecutionContextAllocationStrategy, ProfilingVerbosity
from tensorrt._layers import shares
from tensorrt._strict import Bound, bound
from tensorrt._values import Dims

_USAGE = "Error Code 3: API Usage Error (Parameter check failed, condition: "
ALIGNMENT = 256


@bound
class IProfiler(Bound):
    """To be subclassed: `report_layer_time` is called for each layer of each run."""

    def report_layer_time(self, layer_name, ms):
        raise RuntimeError('Tried to call pure virtual function "IProfiler::reportLayerTime"')


@bound
class IExecutionContext(Bound):
    """Shapes, addresses and memory of one run after another; for one thread at a time."""

    def _setup(self, engine, strategy):
        self._engine, self._strategy = engine, strategy
        self._profile, self._addresses, self._block = 0, {}, (0, 0)
        self._shapes = self._static()
        self._settings = {"enqueue_emits_profile": True, "debug_sync": False, "name": ""}
        self._profiler, self._pending = None, None
        self._warm = False
        self._busy = threading.Lock()
        engine._contexts += 1

    def __del__(self):
        if "_busy" in vars(self):
            self._engine._contexts -= 1

    def _static(self):
        executor = self._engine._executor
        shapes = {n: executor.static_shape(n) for n in executor.inputs}
        return {n: s for n, s in shapes.items() if -1 not in s}

    @property
    def engine(self):
        return self._engine

    # ------------------------------------------------------------------------------------ profiles and shapes

    @property
    def active_optimization_profile(self):
        return self._profile

    def set_optimization_profile_async(self, profile_index, stream_handle):
        if not 0 <= profile_index < self._engine.num_optimization_profiles or _capture.recording() is not None:
            log.error(f"IExecutionContext::setOptimizationProfileAsync: {_USAGE}profileIndex {profile_index})")
            raise RuntimeError("Error in set optimization profile async.")
        if profile_index != self._profile:
            self._profile, self._shapes, self._warm = int(profile_index), self._static(), False
        return True

    def set_input_shape(self, name, shape):
        shape, executor = tuple(int(d) for d in shape), self._engine._executor
        if name not in executor.inputs:
            log.error(
                f"IExecutionContext::setInputShape: {_USAGE}Given invalid tensor name: {name}. Get valid tensor names "
                "with getIOTensorName())"
            )
            return False
        declared = executor.static_shape(name)
        if len(shape) != len(declared) or any(d not in (-1, s) for d, s in zip(declared, shape, strict=True)):
            log.error(
                f"IExecutionContext::setInputShape: {_USAGE}engineDims.d[i] == dims.d[i]. Static dimension mismatch "
                f"while setting input shape for {name}. Set dimensions are {list(shape)}. Expected dimensions are "
                f"{list(declared)}.)"
            )
            return False
        ranges = self._engine._plan.profiles[self._profile].get(name)
        if ranges is not None and not all(a <= s <= b for a, s, b in zip(ranges[0], shape, ranges[2], strict=True)):
            log.error(
                f"IExecutionContext::setInputShape: {_USAGE}satisfyProfile. Runtime dimension does not satisfy any "
                "optimization profile.)"
            )
            return False
        if self._shapes.get(name) != shape:
            self._shapes[name], self._warm = shape, False
        return True

    @property
    def all_binding_shapes_specified(self):
        return self._shapes.keys() == self._engine._executor.inputs.keys()

    @property
    def all_shape_inputs_specified(self):
        return True

    def infer_shapes(self):
        missing = [n for n in self._engine._executor.inputs if n not in self._shapes]
        if not missing and self._engine._executor.check(self._shapes) is not None:
            log.error(
                "IExecutionContext::inferShapes: Error Code 7: Internal Error (broadcast with incompatible dimensions)"
            )
            raise RuntimeError("infer_shapes error code: -1")
        return missing

    def get_tensor_shape(self, name):
        executor = self._engine._executor
        if name in executor.inputs:
            return Dims(self._shapes.get(name, executor.static_shape(name)))
        if name not in executor.outputs:
            log.error(f"IExecutionContext::getTensorShape: {_USAGE}Given invalid tensor name: {name}.)")
            return Dims([-1])
        if not self.all_binding_shapes_specified:
            return Dims(executor.static_shape(name))
        return Dims(executor.output_shapes(self._shapes)[name])

    def get_tensor_strides(self, name):
        shape = tuple(self.get_tensor_shape(name))
        return Dims([int(np.prod(shape[i + 1 :], dtype=np.int64)) for i in range(len(shape))])

    # ------------------------------------------------------------------------------------ addresses and memory

    def set_tensor_address(self, name, memory):
        executor = self._engine._executor
        if name not in executor.inputs and name not in executor.outputs:
            log.error(f"IExecutionContext::setTensorAddress: {_USAGE}Given invalid tensor name: {name}.)")
            return False
        self._addresses[name] = int(memory)
        return True

    def get_tensor_address(self, name):
        return self._addresses.get(name, 0)

    def get_max_output_size(self, name):
        shapes = self._shapes if self.all_binding_shapes_specified else self._engine._largest(self._profile)
        executor = self._engine._executor
        return executor.nbytes(name, executor.output_shapes(shapes)[name])

    def set_device_memory(self, memory, size):
        if self._strategy != ExecutionContextAllocationStrategy.USER_MANAGED:
            log.error(f"IExecutionContext::setDeviceMemoryV2: {_USAGE}the context allocates its memory itself.)")
        elif memory % ALIGNMENT:
            log.error(f"IExecutionContext::setDeviceMemoryV2: {_USAGE}memory is not aligned to {ALIGNMENT} bytes.)")
        elif size < self._needed():
            log.error(f"IExecutionContext::setDeviceMemoryV2: {_USAGE}size {size} is less than {self._needed()}.)")
        else:
            self._block, self._warm = (int(memory), int(size)), False

    @property
    def device_memory(self):
        return self._block[0]

    @device_memory.setter
    def device_memory(self, value):
        self._block = (int(value), self._needed())

    def update_device_memory_size_for_shapes(self):
        return self._needed() if self.all_binding_shapes_specified else 0

    def set_aux_streams(self, aux_streams):
        self._settings["aux_streams"] = list(aux_streams)

    def _needed(self) -> int:
        return self._engine.get_device_memory_size_for_profile_v2(self._profile)

    # ------------------------------------------------------------------------------------ runs

    def execute_async_v3(self, stream_handle):
        work, problem = _capture.recording(), _enqueue.problem(self)
        if problem is None and work is not None:
            problem = _enqueue.capture_problem(self)
        if problem is not None:
            log.error(problem)
            return False
        if work is not None:
            work.append(_enqueue.job(self))
            return True
        if stream_handle == 0:
            log.warning(
                "Using default stream in enqueueV3() may lead to performance issues due to additional calls to "
                "cudaStreamSynchronize() by TensorRT to ensure correct synchronization. Please use non-default stream "
                "instead."
            )
        self._warm = True
        spent = _enqueue.job(self)()
        if spent is not None and self._profiler is not None:
            self._pending = (spent, dict(self._shapes), self._engine._layers())
            if self.enqueue_emits_profile:
                self.report_to_profiler()
        return spent is not None

    # ------------------------------------------------------------------------------------ profiling

    @property
    def profiler(self):
        return self._profiler

    @profiler.setter
    def profiler(self, value):
        self._profiler = value

    def report_to_profiler(self):
        if self._profiler is None or self._pending is None or _capture.recording() is not None:
            log.error(f"IExecutionContext::reportToProfiler: {_USAGE}there is no run to report.)")
            return False
        spent, shapes, layers = self._pending
        self._pending = None
        for name in self._engine._executor.inputs:
            self._profiler.report_layer_time(f"Reformatting CopyNode for Input Tensor {name}", 0.0)
        for layer, share in zip(layers, shares(layers, self._engine._executor, shapes), strict=True):
            self._profiler.report_layer_time(layer.name + self._engine._suffix(self._profile, layer), spent * share)
        return True


def _flag(name, default=None):
    def get(self):
        return self._settings.get(name, default)

    def put(self, value):
        self._settings[name] = value

    return property(get, put)


for _name in ("enqueue_emits_profile", "debug_sync", "name", "persistent_cache_limit"):
    setattr(IExecutionContext, _name, _flag(_name))
IExecutionContext.nvtx_verbosity = _flag("nvtx_verbosity", ProfilingVerbosity.LAYER_NAMES_ONLY)
