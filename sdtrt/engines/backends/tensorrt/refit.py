"""Replacing the weights in a built engine, and restoring those of the build to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sdtrt.engines.backends.tensorrt import cuda
from sdtrt.engines.backends.tensorrt.logger import collect_errors, logger
from sdtrt.engines.backends.tensorrt.running.session import Session, torch_dtype
from sdtrt.engines.onnx_weights import OnnxWeights
from sdtrt.errors import EngineError

if TYPE_CHECKING:
    import tensorrt as trt
    from torch import Tensor

_THREADS = 8


class TrtWeights(OnnxWeights):
    """The weights of a session's engine; `model` is the ONNX file that it was built from."""

    def __init__(self, session: Session, model: Path, checked: bool) -> None:
        super().__init__(model, session.error_context.name, session.error_context.rebuild)
        self.checked = checked
        self._session = session

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Give these parameters new values and all others those of the build.

        No thread may run the engine during the call. After an EngineError the engine is as before, except for the
        slug "refit-failed", after which it must be loaded again.
        """
        base = self._initializers()
        changes = {**{n: base[n] for n in self._changed if n not in weights}, **weights}
        if not changes:
            return
        import tensorrt as trt

        engine = self._session.engine
        with collect_errors() as logged:
            refitter = trt.Refitter(engine, logger())
            refitter.max_threads = _THREADS
            refittable, alive = set(refitter.get_all_weights()), []
            for name, tensor in changes.items():
                if name not in refittable:
                    raise self._error([], "refit-fixed", name, "a weight that the engine lets be replaced")
                alive.append(self._set(refitter, name, tensor, logged))
            # The other weights of a fused kernel must be set too, and setting them may require more.
            while missing := refitter.get_missing_weights():
                for name in missing:
                    if name not in base:
                        raise self._error(logged, "refit-missing", name, "a weight of the kept ONNX file")
                    alive.append(self._set(refitter, name, base[name], logged))
            cuda.runtime.synchronize(self._session.device)  # no kernel may read the weights that are written
            refitted = refitter.refit_cuda_engine()
            self._session.weights_changed()
            if hasattr(refitter, "release_refit_resources"):
                refitter.release_refit_resources()
        self._changed = frozenset(weights)
        if not refitted:
            raise self._error(logged, "refit-failed", "no message", "new weights in the engine")

    def _set(self, refitter: trt.Refitter, name: str, tensor: Tensor, logged: list[str]) -> Tensor:
        """Set one weight; the returned tensor must live until the refit is done."""
        import tensorrt as trt

        prototype = refitter.get_weights_prototype(name)
        kind, size = prototype.dtype, prototype.size
        dtype = torch_dtype(kind, name, self._component)
        if tensor.numel() != size or tensor.dtype != dtype:
            received, expected = f"{name}: {tensor.numel()} of {tensor.dtype}", f"{size} of {dtype}"
            raise self._error(logged, "refit-weight", received, expected)
        ready = tensor.cpu().contiguous()
        weights = trt.Weights(kind, ready.data_ptr(), size)
        if not refitter.set_named_weights(name, weights, trt.TensorLocation.HOST):
            raise self._error(logged, "refit-weight", name, f"{size} of {dtype}")
        return ready

    def _error(self, logged: list[str], slug: str, received: str, expected: str) -> Exception:
        fallback = EngineError(
            f"weights of {self._component} cannot be replaced in its engine",
            slug=slug,
            received=received,
            expected=expected,
            hint=f"rebuild with options: {{refit: all}}: {self._rebuild} --force",
        )
        return self._session.error_context.from_log(logged, fallback)
