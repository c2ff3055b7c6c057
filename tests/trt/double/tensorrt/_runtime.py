"""The runtime: plan in, engine out, or None."""

from __future__ import annotations

from tensorrt import _logger as log
from tensorrt._engine import ICudaEngine
from tensorrt._plan import read
from tensorrt._streams import IStreamReaderV2, read_all
from tensorrt._strict import Bound, bound


@bound
class Runtime(Bound):
    """Deserialises plans."""

    def __init__(self, logger):
        self._logger = log.register(logger, "createInferRuntime")
        self._settings = {"engine_host_code_allowed": False, "max_threads": 1}

    @property
    def logger(self):
        return self._logger

    @property
    def engine_host_code_allowed(self):
        return self._settings["engine_host_code_allowed"]

    @engine_host_code_allowed.setter
    def engine_host_code_allowed(self, value):
        self._settings["engine_host_code_allowed"] = bool(value)

    @property
    def max_threads(self):
        return self._settings["max_threads"]

    @max_threads.setter
    def max_threads(self, value):
        self._settings["max_threads"] = int(value)

    def deserialize_cuda_engine(self, *args, **kwargs):
        (source,) = (*args, *kwargs.values())
        streamed = isinstance(source, IStreamReaderV2)
        data = read_all(source) if streamed else bytes(source)
        plan = None if data is None else read(data, self.engine_host_code_allowed)
        if plan is None:
            return None
        if "WEIGHT_STREAMING" in plan.flags:
            if not streamed:
                log.warning(
                    "Providing user-owned deserialization memory with weight streaming enabled will increase peak CPU "
                    "memory usage by 1X weights size. Please use IRuntime::deserializeCudaEngine(IStreamReaderV2)."
                )
            log.info("This engine can stream its weights. Please use setWeightStreamingBudgetV2().")
        return ICudaEngine._make(plan, self)
