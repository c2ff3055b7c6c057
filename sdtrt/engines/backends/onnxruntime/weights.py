"""Other weights in an engine of ONNX Runtime: a new session, whose graph has them instead of those in the file.

The runtime replaces external initializers before it optimizes the graph. Its `add_initializer` comes after that:
constants into which the old weights were folded would keep them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

from sdtrt.engines.onnx_weights import OnnxWeights
from sdtrt.engines.weights import check_replacement
from sdtrt.errors import EngineError

if TYPE_CHECKING:
    from torch import Tensor

_FOLDER = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True)
class Replaced:
    """The model in a file, with other weights."""

    path: Path
    weights: Mapping[str, Tensor]

    def source(self, settings: Any) -> bytes:
        """The serialized model of a session; `settings` get the weights, which the session copies."""
        import onnx
        import onnxruntime as ort

        model = onnx.load(self.path, load_external_data=False)
        for tensor in model.graph.initializer:
            if tensor.name in self.weights and tensor.data_location != onnx.TensorProto.EXTERNAL:
                _externalize(tensor)
        values = [ort.OrtValue.ortvalue_from_numpy(t.cpu().contiguous().numpy()) for t in self.weights.values()]
        settings.add_external_initializers(list(self.weights), values)
        settings.add_session_config_entry(_FOLDER, str(self.path.parent))
        serialized: bytes = model.SerializeToString()
        return serialized


class OrtWeights(OnnxWeights):
    """The weights of an engine; `reopen` opens its session again, with others or, for None, those of the file.

    `reopen` is a method of the engine and weakly referenced, so that dropping the engine frees it at once.
    """

    checked = False  # the session opens as it does for the weights of the file

    def __init__(self, path: Path, component: str, rebuild: str, reopen: Callable[[Replaced | None], None]) -> None:
        super().__init__(path, component, rebuild)
        self._method = WeakMethod(reopen)

    def _reopen(self, replaced: Replaced | None) -> None:
        if (reopen := self._method()) is not None:
            reopen(replaced)

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Give these parameters new values and all others those of the build.

        EngineError for weights that do not fit changes nothing; with the slug "refit-failed", no session could be
        opened with them, and the weights of the build are back.
        """
        base = self._initializers()
        for name, tensor in weights.items():
            check_replacement(self._component, name, tensor, base.get(name))
        if not weights and not self._changed:
            return
        try:
            self._reopen(Replaced(self._model, weights) if weights else None)
        except EngineError as exc:
            self._changed = frozenset()
            self._reopen(None)
            raise EngineError(
                f"the engine of {self._component} cannot be opened with other weights",
                slug="refit-failed",
                received=exc.received,
                expected="a session; the weights of the build are back in it",
                hint="free memory, or build with the adapter: sdtrt build MODEL --lora FILE",
            ) from exc
        self._changed = frozenset(weights)


def _externalize(tensor: Any) -> None:
    """Mark a tensor of the model file as external, since only those can be replaced; its location is never read."""
    count = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    for key, value in (("location", "replaced"), ("offset", "0"), ("length", str(count))):
        tensor.external_data.add(key=key, value=value)
