"""The runtime: plan in, engine out, or None."""

from __future__ import annotations

from tensorrt import _logger as log
from tensorrt._engine import ICudaEngine
from tensorrt._plan import read
from tensorrt._shared import LOGGER, MAX_THREADS
from tensorrt._streams import IStreamReaderV2, read_all
from tensorrt._strict import Bound, bound


@bound
class Runtime(Bound):
    """Deserializes plans."""

    logger, max_threads = LOGGER, MAX_THREADS

    def __init__(self, logger):
        self._logger = log.register(logger, "createInferRuntime")
        self._threads, self._host_code = 1, False

    @property
    def engine_host_code_allowed(self):
        return self._host_code

    @engine_host_code_allowed.setter
    def engine_host_code_allowed(self, value):
        self._host_code = bool(value)

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
