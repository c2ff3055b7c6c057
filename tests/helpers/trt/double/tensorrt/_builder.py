"""The builder: checks what the real one checks (`_checks`), tells a monitor of it (`_phases`), and writes a plan."""

from __future__ import annotations

import os
import zlib

import onnx

from tensorrt import _checks, _phases
from tensorrt import _logger as log
from tensorrt._config import IBuilderConfig, IOptimizationProfile
from tensorrt._executor import Executor
from tensorrt._layers import layers_of
from tensorrt._machine import fault
from tensorrt._network import INetworkDefinition
from tensorrt._plan import Plan
from tensorrt._shared import LOGGER, MAX_THREADS
from tensorrt._strict import Bound, bound
from tensorrt._values import IHostMemory, data_type

_FLOATS = ("FLOAT", "HALF", "BF16")


@bound
class Builder(Bound):
    """Makes networks, configs, profiles and plans."""

    logger, max_threads = LOGGER, MAX_THREADS

    def __init__(self, logger):
        self._logger = log.register(logger, "createInferBuilder")
        self._threads = 1

    @property
    def platform_has_fast_fp16(self):
        return True

    @property
    def platform_has_fast_int8(self):
        return True

    @property
    def platform_has_tf32(self):
        return True

    def create_network(self, flags=0):
        return INetworkDefinition._make(flags)

    def create_builder_config(self):
        return IBuilderConfig._make()

    def create_optimization_profile(self):
        return IOptimizationProfile._make()

    def is_network_supported(self, network, config):
        return network.num_outputs > 0

    def reset(self):
        pass

    def build_serialized_network(self, network, config, kernel_text=None):
        plan = self._build(network, config)
        return None if plan is None else IHostMemory._make(plan.save())

    def build_serialized_network_to_stream(self, network, config, writer):
        plan = self._build(network, config)
        if plan is None:
            return False
        data = plan.save()
        return writer.write(data) == len(data)

    def _build(self, network, config) -> Plan | None:
        problem = _checks.problem(network, config)
        if problem is not None:
            log.error(problem)
            return None
        executor = Executor(network._model)
        for index, profile in enumerate(config._profiles):
            problem = _checks.contradiction(executor, profile, index)
            if problem is not None:
                log.error(problem)
                return None
        layers = layers_of(network._model)
        if not _phases.tell(config.progress_monitor, len(layers)):
            log.error("IBuilder::buildSerializedNetwork: Error Code 2: Internal Error (Build was cancelled.)")
            return None
        if fault("build-crash"):
            os.abort()
        if fault("out-of-memory"):
            log.warning(
                "Skipping tactic 0x0 due to Myelin error: autotuning: CUDA error 2 allocating 6443238909-byte buffer: "
                "out of memory"
            )
        if fault("no-implementation") or fault("out-of-memory"):
            first, last = (network._model.graph.node[at].name for at in (0, -1))
            log.error(
                "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any implementation "
                f"for node {{ForeignNode[{first}...{last}]}}.)"
            )
            return None
        _remember(config._cache, layers)
        return _plan(network, config)


def _remember(cache, layers) -> None:
    """Put a time for each layer into the timing cache, or read it from there."""
    if cache is None:
        return
    for layer in layers:
        key = f"{zlib.crc32((layer.group.kind + layer.metadata()).encode()):08x}"
        cache._entries.setdefault(key, 0.01)


def _plan(network, config) -> Plan:
    flags = config._flag_names()
    model = network._model
    floats = [t.name for t in model.graph.initializer if getattr(data_type(t.data_type), "name", "") in _FLOATS]
    refit = next((f for f in flags if f.startswith("REFIT")), "REFIT_IDENTICAL" if "STRIP_PLAN" in flags else "")
    return Plan(
        model=_stripped(model) if "STRIP_PLAN" in flags else model,
        profiles=[p._ranges for p in config._profiles] or [{}],
        name=network.name,
        verbosity=config.profiling_verbosity.name,
        flags=[*flags, *([refit] if refit and refit not in flags else [])],
        refittable=sorted(network._marked) if refit == "REFIT_INDIVIDUAL" else (floats if refit else []),
        stripped="STRIP_PLAN" in flags,
        hardware=config.hardware_compatibility_level.name,
        aux_streams=max(0, min(config.max_aux_streams, 2)),
        strongly_typed=network._typed(),
    )


def _stripped(model):
    """The model with zeros for the weights that a refit can bring back."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for tensor in bare.graph.initializer:
        if getattr(data_type(tensor.data_type), "name", "") in _FLOATS and tensor.raw_data:
            tensor.raw_data = bytes(len(tensor.raw_data))
    return bare
