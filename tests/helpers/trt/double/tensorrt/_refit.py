"""Refitting: new values for the weights of an engine, all of a layer together."""

from __future__ import annotations

from pathlib import Path

import onnx

from tensorrt import _logger as log
from tensorrt import _model
from tensorrt._enums import TensorLocation
from tensorrt._parser import ParserError
from tensorrt._shared import LOGGER, MAX_THREADS
from tensorrt._strict import Bound, bound
from tensorrt._values import Weights, data_type, volume

_WHO = "IRefitter::setNamedWeights: Error Code 3: API Usage Error ("


@bound
class Refitter(Bound):
    """Collects weights by the names of the ONNX initializers, then puts them into the engine."""

    logger, max_threads = LOGGER, MAX_THREADS

    def __init__(self, engine, logger):
        self._logger = log.register(logger, "createInferRefitter")
        if not engine.refittable:
            log.error("createInferRefitter: Error Code 3: API Usage Error (The engine was not built to be refitted.)")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._engine, self._new = engine, {}
        self._threads, self._validates = 1, True

    def _tensors(self):
        return {t.name: t for t in self._engine._plan.model.graph.initializer}

    @property
    def weights_validation(self):
        return self._validates

    @weights_validation.setter
    def weights_validation(self, value):
        self._validates = value

    def get_all_weights(self):
        return list(self._engine._plan.refittable)

    def get_missing_weights(self):
        """Weights of the layers that were touched, or of all layers of a plan without weights."""
        wanted = set(self._engine._plan.refittable)
        if self._engine._filled:
            layers = [set(layer.group.weights) for layer in self._engine._layers()]
            wanted &= {name for layer in layers if layer & self._new.keys() for name in layer}
        return sorted(wanted - self._new.keys())

    def get_weights_prototype(self, weights_name):
        tensor = self._tensors().get(weights_name)
        if tensor is None or weights_name not in self._engine._plan.refittable:
            return Weights()
        return Weights(data_type(tensor.data_type), 0, volume(tensor.dims))

    def get_named_weights(self, weights_name):
        return self._new.get(weights_name, Weights())

    def get_weights_location(self, weights_name):
        return TensorLocation.HOST

    def set_named_weights(self, name, weights, location=TensorLocation.HOST):
        want = self.get_weights_prototype(name)
        if name not in self._engine._plan.refittable:
            log.error(f"{_WHO}{name}: The weights cannot be refitted)")
            return False
        if weights.dtype != want.dtype or weights.size != want.size:
            log.error(
                f"{_WHO}{name}: weights of type {weights.dtype.name} and size {weights.size}, expected "
                f"{want.dtype.name} and {want.size})"
            )
            return False
        self._new[name] = weights
        return True

    def unset_named_weights(self, weights_name):
        return self._new.pop(weights_name, None) is not None

    def refit_cuda_engine(self):
        missing = self.get_missing_weights()
        if missing:
            log.error(f"IRefitter::refitCudaEngine: Error Code 3: API Usage Error (missing weights: {missing[0]}, ...)")
            return False
        model = onnx.ModelProto()
        model.CopyFrom(self._engine._plan.model)
        for tensor in model.graph.initializer:
            if tensor.name in self._new:
                self._write(tensor)
        self._engine._refit(model)
        self._new = {}
        return True

    def _write(self, tensor) -> None:
        data = self._new[tensor.name]._bytes()
        same_only = "REFIT_IDENTICAL" in self._engine._plan.flags and self._engine._filled
        if same_only and data != onnx.numpy_helper.to_array(tensor).tobytes():
            # Undefined in the real library, which keeps what it precomputed from the old weights.
            log.warning(f"{tensor.name}: other weights than those of the build in an engine of kREFIT_IDENTICAL")
            data = bytes(len(data))
        for field in ("float_data", "int32_data"):
            tensor.ClearField(field)
        tensor.raw_data = data

    def refit_cuda_engine_async(self, stream_handle):
        return self.refit_cuda_engine()

    def release_refit_resources(self):
        return True


@bound
class OnnxParserRefitter(Bound):
    """Fills a refitter from an ONNX file that must have them all."""

    def __init__(self, refitter, logger):
        self._refitter, self._errors = refitter, []

    def refit_from_file(self, model):
        from tensorrt._enums import ErrorCode

        path = Path(model)
        try:
            found = {t.name: t for t in _model.load(path).graph.initializer}
        except Exception as exc:  # noqa: BLE001 (whatever protobuf or the file system says)
            return self._fail(ErrorCode.MODEL_DESERIALIZE_FAILED, f"Failed to open file: {path.name} {exc}")
        self._alive = []
        for name in self._refitter.get_all_weights():
            if name not in found:
                return self._fail(ErrorCode.REFIT_FAILED, "Failed to refit all the weights.")
            data = onnx.numpy_helper.to_array(found[name]).copy()
            self._alive.append(data)
            kind = data_type(found[name].data_type)
            if not self._refitter.set_named_weights(name, Weights(kind, data.ctypes.data, data.size)):
                return self._fail(ErrorCode.REFIT_FAILED, f"Failed to set weights: {name}")
        return True

    def _fail(self, code, text):
        self._errors.append(ParserError._make(code, text))
        log.error(f"OnnxParserRefitter: {text}")
        return False

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return self._errors[index]

    def clear_errors(self):
        self._errors.clear()
