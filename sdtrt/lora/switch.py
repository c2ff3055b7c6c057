"""diffusers' LoRA methods for a pipeline whose engines take other weights.

What adapters there are, which act, and how strongly, is kept by diffusers' own code on modules without an engine. The
engines then get the weights that follow from it: those of the build, plus all that acts, summed anew each time, so that
nothing is left over from one style in the next.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt.engines import Engine
from sdtrt.errors import ConfigError
from sdtrt.lora.files import read, resolve
from sdtrt.lora.timing import PartTime, SwitchTime

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sdtrt.lora.adapters import AdapterModules
    from sdtrt.lora.refit import Part

# What `LoraSwitch` puts in the place of a pipeline's own methods.
METHODS = (
    "load_lora_weights",
    "unload_lora_weights",
    "set_adapters",
    "delete_adapters",
    "enable_lora",
    "disable_lora",
    "fuse_lora",
    "unfuse_lora",
    "get_active_adapters",
    "get_list_adapters",
)


class LoraSwitch:
    """The LoRA methods of one pipeline. `eager` are parts that have no engine: adapters go onto them directly.

    No other thread may run the pipeline while one of these methods works. After an error in a change, the weights of
    the build are back in all engines and no adapter acts; `set_adapters` switches those that were loaded on again.
    `last` says how long the last change took.
    """

    def __init__(self, engines: Mapping[str, Engine], eager: Mapping[str, nn.Module], folder: Path, xl: bool) -> None:
        for engine in engines.values():
            engine.weights()  # Unsupported at once, when one cannot take other weights
        self._engines, self._eager = dict(engines), dict(eager)
        self._folder, self._xl = folder, xl
        self._open_changes = 0
        self.last: SwitchTime | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make all changes inside as one: the engines get their weights once, at the end."""
        with self._changing("together", self._reset):
            yield

    def load_lora_weights(
        self,
        source: str | os.PathLike[str] | Mapping[str, Tensor],
        adapter_name: str | None = None,
        *,
        weight_name: str | None = None,
        **hub: Any,
    ) -> None:
        """Load a LoRA and make it the active adapter: a file, a folder, a hub id, or a dict of tensors.

        ModelError when it is no LoRA, or one for another kind of model.
        """
        loaded: list[str] = []
        with self._changing("load_lora_weights", lambda: self._drop(loaded)):
            path = source if isinstance(source, Mapping) else resolve(source, weight_name, **hub)
            file = read(path, self._folder, self._xl)
            for part, modules in self._shadow.targets(file).items():
                if part in self._parts:
                    self._parts[part].refuse_shared(modules)
            loaded.append(self._shadow.add(file, adapter_name))

    def unload_lora_weights(self) -> None:
        """Drop all adapters. What `fuse_lora` fused stays; otherwise the weights are those of the build, to the bit."""
        if "_shadow" in self.__dict__:
            with self._changing("unload_lora_weights"):
                self._shadow.loader.unload_lora_weights()
                self._forget(self._all_inside())

    def set_adapters(self, adapter_names: Sequence[str] | str, adapter_weights: Any = None) -> None:
        """Make these adapters act, each with its weight: any number, or a dict by part or block as diffusers takes."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        with self._changing("set_adapters"):
            self._shadow.loader.set_adapters(names, adapter_weights)

    def delete_adapters(self, adapter_names: Sequence[str] | str) -> None:
        """Drop adapters by name."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        with self._changing("delete_adapters"):
            self._shadow.loader.delete_adapters(names)
            self._forget(set(names))

    def enable_lora(self) -> None:
        """Let the active adapters act again."""
        with self._changing("enable_lora"):
            self._shadow.loader.enable_lora()

    def disable_lora(self) -> None:
        """Let no adapter act, until `enable_lora`."""
        with self._changing("disable_lora"):
            self._shadow.loader.disable_lora()

    def fuse_lora(
        self,
        components: Sequence[str] | None = None,
        lora_scale: float = 1.0,
        safe_fusing: bool = False,
        adapter_names: Sequence[str] | None = None,
    ) -> None:
        """Make what the adapters do, times `lora_scale`, the base of all that comes, until `unfuse_lora`.

        In an engine adapters are always fused; this keeps them when they are unloaded. Weights that are not finite are
        refused, whatever `safe_fusing` says.
        """
        from sdtrt.lora.adapters import active

        with self._changing("fuse_lora", self._reset):
            for name in self._chosen(components):
                if name in self._eager:
                    names = list(adapter_names) if adapter_names else None
                    self._shadow.loader.fuse_lora([name], lora_scale, safe_fusing, names)
                    continue
                part = self._parts[name]
                part.fuse(set(adapter_names or active(part.module)), lora_scale)

    def unfuse_lora(self, components: Sequence[str] | None = None) -> None:
        """Undo `fuse_lora`; adapters that are still loaded act as before it."""
        with self._changing("unfuse_lora"):
            for name in self._chosen(components):
                if name in self._eager:
                    self._shadow.loader.unfuse_lora([name])
                else:
                    self._parts[name].unfuse()

    def get_active_adapters(self) -> list[str]:
        """Names of the adapters that act."""
        found: list[str] = self._shadow.loader.get_active_adapters()
        return found

    def get_list_adapters(self) -> dict[str, list[str]]:
        """Names of all adapters, by part of the pipeline."""
        found: dict[str, list[str]] = self._shadow.loader.get_list_adapters()
        return {part: names for part, names in found.items() if names}

    @cached_property
    def _parts(self) -> dict[str, Part]:
        from sdtrt.lora.refit import Part

        return {name: Part(engine, self._folder) for name, engine in self._engines.items()}

    @cached_property
    def _shadow(self) -> AdapterModules:
        from sdtrt.lora.adapters import AdapterModules

        modules = {name: part.module for name, part in self._parts.items()}
        return AdapterModules({**modules, **self._eager}, self._xl, in_float32=tuple(modules))

    @contextmanager
    def _changing(self, method: str, on_error: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Put what follows from a change into the engines, unless it is part of another change, which then does so."""
        started, outermost = time.perf_counter(), not self._open_changes
        self._open_changes += 1
        done, parts = False, []
        try:
            yield
            if outermost:
                parts = self._apply()
            done = True
        finally:
            self._open_changes -= 1
            if not done:
                on_error()
        if outermost:
            self.last = SwitchTime(method, (time.perf_counter() - started) * 1e3, tuple(parts))

    def _apply(self) -> list[PartTime]:
        """Put the weights that follow from the adapters into the engines, or those of the build when that fails."""
        done = False
        try:
            times = [part.apply() for part in self._parts.values()]
            done = True
        finally:
            if not done:
                self._reset()
        return [t for t in times if t is not None]

    def _reset(self) -> None:
        from sdtrt.lora.adapters import activate

        for module in self._eager.values():
            activate(module, ())
        for part in self._parts.values():
            part.reset()

    def _drop(self, names: list[str]) -> None:
        if names:
            self._shadow.loader.delete_adapters(names)

    def _forget(self, names: set[str]) -> None:
        """Another adapter may come under the name of one that was fused and dropped."""
        for part in self._parts.values():
            part.inside -= names

    def _all_inside(self) -> set[str]:
        return {name for part in self._parts.values() for name in part.inside}

    def _chosen(self, components: Sequence[str] | None) -> list[str]:
        known = [*self._parts, *self._eager]
        chosen = known if components is None else list(components)
        if not chosen or (unknown := sorted(set(chosen) - set(known))):
            raise ConfigError(
                "adapters cannot be fused there",
                slug="lora-component",
                received=", ".join(unknown) if chosen else "no component",
                expected=", ".join(known),
            )
        return chosen
