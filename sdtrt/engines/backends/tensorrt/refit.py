"""Other weights in a built engine, and back to the very ones that it was built with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sdtrt.engines.backends.tensorrt import cuda, error_table
from sdtrt.engines.backends.tensorrt.logger import errors, logger
from sdtrt.engines.backends.tensorrt.running.session import Session, torch_type
from sdtrt.engines.onnx_weights import OnnxWeights
from sdtrt.errors import EngineError

if TYPE_CHECKING:
    import tensorrt as trt
    from torch import Tensor

_THREADS = 8


class TrtWeights(OnnxWeights):
    """The weights of a session's engine; `model` is the ONNX file that it was built from."""

    def __init__(self, session: Session, model: Path, checked: bool) -> None:
        super().__init__(model, session.what, session.rebuild)
        self.checked = checked
        self._session = session

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Give these parameters new values and all others those of the build.

        No thread may run the engine meanwhile. EngineError leaves the engine as it was, except for one with the slug
        "refit-failed", after which it must be loaded anew.
        """
        base = self._initializers()
        wanted = {**{n: base[n] for n in self._changed if n not in weights}, **weights}
        if not wanted:
            return
        import tensorrt as trt

        engine = self._session.engine
        with errors() as logged:
            refitter = trt.Refitter(engine, logger())
            refitter.max_threads = _THREADS
            known, alive = set(refitter.get_all_weights()), []
            for name, tensor in wanted.items():
                if name not in known:
                    raise self._error([], "refit-fixed", name, "a weight that the engine lets be replaced")
                alive.append(self._set(refitter, name, tensor, logged))
            # The neighbors in a fused kernel must be given again, and giving them may ask for more.
            while missing := refitter.get_missing_weights():
                for name in missing:
                    if name not in base:
                        raise self._error(logged, "refit-missing", name, "a weight of the kept ONNX file")
                    alive.append(self._set(refitter, name, base[name], logged))
            cuda.cuda.synchronize(self._session.device)  # memory that kernels read is written to
            done = refitter.refit_cuda_engine()
            self._session.weights_changed()
            if hasattr(refitter, "release_refit_resources"):
                refitter.release_refit_resources()
        self._changed = frozenset(weights)
        if not done:
            raise self._error(logged, "refit-failed", "no message", "new weights in the engine")

    def _set(self, refitter: trt.Refitter, name: str, tensor: Tensor, logged: list[str]) -> Tensor:
        """Hand one weight over; what is returned must live until the refit is done."""
        import tensorrt as trt

        prototype = refitter.get_weights_prototype(name)
        kind, size = prototype.dtype, prototype.size
        dtype = torch_type(kind, name, self._component)
        if tensor.numel() != size or tensor.dtype != dtype:
            received, expected = f"{name}: {tensor.numel()} of {tensor.dtype}", f"{size} of {dtype}"
            raise self._error(logged, "refit-weight", received, expected)
        ready = tensor.cpu().contiguous()
        weights = trt.Weights(kind, ready.data_ptr(), size)
        if not refitter.set_named_weights(name, weights, trt.TensorLocation.HOST):
            raise self._error(logged, "refit-weight", name, f"{size} of {dtype}")
        return ready

    def _error(self, logged: list[str], slug: str, received: str, expected: str) -> Exception:
        what, rebuild = self._component, self._rebuild
        otherwise = EngineError(
            f"weights of {what} cannot be replaced in its engine",
            slug=slug,
            received=received,
            expected=expected,
            hint=f"rebuild with options: {{refit: all}}: {rebuild} --force",
        )
        return error_table.from_log(logged, what, rebuild=rebuild, otherwise=otherwise)
