"""Other weights in an engine whose weights are tensors of torch: another tensor takes a parameter's place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from sdtrt.engines.base import EngineWeights
from sdtrt.errors import EngineError

if TYPE_CHECKING:
    from torch import Tensor


class TensorWeights(EngineWeights):
    """The parameters that an engine computes with, by name.

    Those of the build stay in memory while others stand in for them: nothing is copied, and going back is exact.
    """

    checked = False  # the tensors that are put are those that are computed with

    def __init__(self, parameters: Mapping[str, Tensor], what: str) -> None:
        self._live, self._what = parameters, what
        self._base: dict[str, Tensor] = {}

    @property
    def changed(self) -> frozenset[str]:
        """Parameters that differ from those of the build."""
        return frozenset(self._base)

    def read(self, parameters: Iterable[str]) -> dict[str, Tensor]:
        """Weights of the build, whatever is in the engine now."""
        return {name: self._base.get(name, self._live[name].data) for name in parameters}

    def shared(self, parameters: Iterable[str]) -> frozenset[str]:
        """Those that a module ties to another parameter."""
        places = {name: (t.data_ptr(), t.numel()) for name, t in self.read(parameters).items()}
        users = Counter(places.values())
        return frozenset(name for name, place in places.items() if users[place] > 1)

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Give these parameters new values and all others those of the build; EngineError changes nothing."""
        for name, tensor in weights.items():
            check_fit(self._what, name, tensor, self._live.get(name))
        for name in self._base.keys() - weights.keys():
            self._live[name].data = self._base.pop(name)
        for name, tensor in weights.items():
            live = self._live[name]
            self._base.setdefault(name, live.data)
            live.data = tensor.to(live.device)


def check_fit(what: str, name: str, tensor: Tensor, base: Tensor | None) -> None:
    """EngineError when there is no such weight in the engine, or one of another shape or type."""
    if base is None or tensor.shape != base.shape or tensor.dtype != base.dtype:
        raise EngineError(
            f"weights of {what} cannot be replaced in its engine",
            slug="refit-weight",
            received=f"{name}: {tuple(tensor.shape)} of {tensor.dtype}",
            expected="the name of a weight in the engine" if base is None else f"{tuple(base.shape)} of {base.dtype}",
        )
