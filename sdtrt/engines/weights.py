"""Replaceable weights: the contract of all engines, and that of engines whose weights are tensors of torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from sdtrt.errors import EngineError

if TYPE_CHECKING:
    from torch import Tensor


class EngineWeights(ABC):
    """The replaceable weights of an engine, by the names of the module's parameters.

    `checked` says that the user wants the engine compared with eager PyTorch after each change.
    """

    checked: bool

    @property
    @abstractmethod
    def changed(self) -> frozenset[str]:
        """Parameters that differ from those of the build."""

    @abstractmethod
    def read(self, parameters: Iterable[str]) -> dict[str, Tensor]:
        """Weights of the build, even while others are in the engine."""

    @abstractmethod
    def shared(self, parameters: Iterable[str]) -> frozenset[str]:
        """Those of the parameters that cannot change alone."""

    @abstractmethod
    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Give these parameters new values and all others those of the build, to the bit.

        They have the shapes and types of `read`, and are not written to afterwards. No thread may run the engine at
        the same time. After an EngineError the engine has its former weights or those of the build: see `changed`.
        """


class TensorWeights(EngineWeights):
    """The parameters that an engine computes with, by name.

    Those of the build stay in memory while others replace them: nothing is copied, and going back is exact.
    """

    checked = False  # the engine computes with the very tensors that `put` takes

    def __init__(self, parameters: Mapping[str, Tensor], component: str) -> None:
        self._live, self._component = parameters, component
        self._base: dict[str, Tensor] = {}

    @property
    def changed(self) -> frozenset[str]:
        """Parameters that differ from those of the build."""
        return frozenset(self._base)

    def read(self, parameters: Iterable[str]) -> dict[str, Tensor]:
        """Weights of the build, even while others are in the engine."""
        return {name: self._base.get(name, self._live[name].data) for name in parameters}

    def shared(self, parameters: Iterable[str]) -> frozenset[str]:
        """Those that a module ties to another parameter."""
        buffers = {name: (t.data_ptr(), t.numel()) for name, t in self.read(parameters).items()}
        users = Counter(buffers.values())
        return frozenset(name for name, buffer in buffers.items() if users[buffer] > 1)

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Give these parameters new values and all others those of the build; EngineError changes nothing."""
        for name, tensor in weights.items():
            check_replacement(self._component, name, tensor, self._live.get(name))
        for name in self._base.keys() - weights.keys():
            self._live[name].data = self._base.pop(name)
        for name, tensor in weights.items():
            live = self._live[name]
            self._base.setdefault(name, live.data)
            live.data = tensor.to(live.device)


def check_replacement(component: str, name: str, tensor: Tensor, base: Tensor | None) -> None:
    """Check that `tensor` can replace the engine's weight `name`.

    Args:
        component: the engine's name, for the error.
        name: of the weight.
        tensor: its new value.
        base: its value of the build; None when the engine has no such weight.

    Raises:
        EngineError: without a weight of that name, or when shape or dtype differ.
    """
    if base is None or tensor.shape != base.shape or tensor.dtype != base.dtype:
        raise EngineError(
            f"weights of {component} cannot be replaced in its engine",
            slug="refit-weight",
            received=f"{name}: {tuple(tensor.shape)} of {tensor.dtype}",
            expected="the name of a weight in the engine" if base is None else f"{tuple(base.shape)} of {base.dtype}",
        )
