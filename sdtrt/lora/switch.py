"""diffusers' LoRA methods for a pipeline whose engines take other weights.

Diffusers' own code keeps the adapters, which of them are active and their scales, on modules without an engine. After
each change the engines get the weights of the build plus all active adapters, summed again from the start, so that no
adapter leaves anything in the next.
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
    from sdtrt.lora.refit import RefitComponent


class LoraSwitch:
    """The LoRA methods of one pipeline; its public methods but `together` replace those of the pipeline.

    `engines` and `eager` are the components that LoRAs change; adapters are put directly onto those without an engine.
    `folder` holds the configs of the model. Raises Unsupported when an engine cannot take other weights.

    No other thread may run the pipeline during one of these methods. After an error in a change, all engines have the
    weights of the build and no adapter is active; `set_adapters` activates the loaded ones again. `last` is the time of
    the last change.
    """

    def __init__(self, engines: Mapping[str, Engine], eager: Mapping[str, nn.Module], folder: Path, xl: bool) -> None:
        for engine in engines.values():
            engine.weights()
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
        """Load a LoRA and make it the active adapter: a file, a folder, a hub id, or tensors by name.

        Raises ModelError when it is no LoRA, or one for another kind of model, ConfigError for a name that is in use.
        """
        added: list[str] = []
        with self._changing("load_lora_weights", lambda: added and self._adapters.loader.delete_adapters(added)):
            path = source if isinstance(source, Mapping) else resolve(source, weight_name, **hub)
            file = read(path, self._folder, self._xl)
            for name, modules in self._adapters.targets(file).items():
                if name in self._components:
                    self._components[name].refuse_shared(modules)
            added.append(self._adapters.add(file, adapter_name))

    def unload_lora_weights(self) -> None:
        """Drop all adapters. What `fuse_lora` fused stays; otherwise the weights are those of the build, to the bit."""
        if "_adapters" in self.__dict__:
            with self._changing("unload_lora_weights"):
                self._adapters.loader.unload_lora_weights()
                for component in self._components.values():
                    component.fused_adapters = set()  # another adapter may get the name of one that was fused

    def set_adapters(self, adapter_names: Sequence[str] | str, adapter_weights: Any = None) -> None:
        """Activate these adapters, each with its weight: any number, or a dict by component or block."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        with self._changing("set_adapters"):
            self._adapters.loader.set_adapters(names, adapter_weights)

    def delete_adapters(self, adapter_names: Sequence[str] | str) -> None:
        """Drop adapters by name."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        with self._changing("delete_adapters"):
            self._adapters.loader.delete_adapters(names)
            for component in self._components.values():
                component.fused_adapters -= set(names)

    def enable_lora(self) -> None:
        """Let the active adapters take effect again."""
        with self._changing("enable_lora"):
            self._adapters.loader.enable_lora()

    def disable_lora(self) -> None:
        """Let no adapter take effect, until `enable_lora`."""
        with self._changing("disable_lora"):
            self._adapters.loader.disable_lora()

    def fuse_lora(
        self,
        components: Sequence[str] | None = None,
        lora_scale: float = 1.0,
        safe_fusing: bool = False,
        adapter_names: Sequence[str] | None = None,
    ) -> None:
        """Add adapters to the base weights of all later changes, until `unfuse_lora`; they stay when unloaded.

        Args:
            components: components of the pipeline, by default all that LoRAs change.
            lora_scale: factor of what the adapters add.
            safe_fusing: for components without an engine; engines never take weights that are not finite.
            adapter_names: adapters to fuse, by default the active ones.

        Raises:
            ConfigError: there is no such component.
            ModelError: a weight overflows; all adapters are inactive then.
        """
        from sdtrt.lora.adapters import active

        with self._changing("fuse_lora", self._reset):
            for name in self._checked(components):
                if name in self._eager:
                    names = list(adapter_names) if adapter_names else None
                    self._adapters.loader.fuse_lora([name], lora_scale, safe_fusing, names)
                else:
                    component = self._components[name]
                    component.fuse(set(adapter_names or active(component.module)), lora_scale)

    def unfuse_lora(self, components: Sequence[str] | None = None) -> None:
        """Undo `fuse_lora`; adapters that are still loaded act as before it."""
        with self._changing("unfuse_lora"):
            for name in self._checked(components):
                if name in self._eager:
                    self._adapters.loader.unfuse_lora([name])
                else:
                    self._components[name].unfuse()

    def get_active_adapters(self) -> list[str]:
        """Names of the active adapters."""
        names: list[str] = self._adapters.loader.get_active_adapters()
        return names

    def get_list_adapters(self) -> dict[str, list[str]]:
        """Names of all adapters, by component."""
        listed: dict[str, list[str]] = self._adapters.loader.get_list_adapters()
        return {component: names for component, names in listed.items() if names}

    @cached_property
    def _components(self) -> dict[str, RefitComponent]:
        from sdtrt.lora.refit import RefitComponent

        return {name: RefitComponent(engine, self._folder) for name, engine in self._engines.items()}

    @cached_property
    def _adapters(self) -> AdapterModules:
        from sdtrt.lora.adapters import AdapterModules

        modules = {name: component.module for name, component in self._components.items()}
        return AdapterModules({**modules, **self._eager}, self._xl, in_float32=tuple(modules))

    @contextmanager
    def _changing(self, method: str, on_error: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Change adapters inside, then the engines' weights, unless this change is part of another one."""
        started, outermost = time.perf_counter(), not self._open_changes
        self._open_changes += 1
        times: list[PartTime] = []
        try:
            yield
            if outermost:
                times = self._apply()
        except BaseException:
            on_error()
            raise
        finally:
            self._open_changes -= 1
        if outermost:
            self.last = SwitchTime(method, (time.perf_counter() - started) * 1e3, tuple(times))

    def _apply(self) -> list[PartTime]:
        """Put the weights with the adapters into the engines, or those of the build when that fails."""
        try:
            times = [component.apply() for component in self._components.values()]
        except BaseException:
            self._reset()
            raise
        return [t for t in times if t is not None]

    def _reset(self) -> None:
        from sdtrt.lora.adapters import activate

        for module in self._eager.values():
            activate(module, ())
        for component in self._components.values():
            component.reset()

    def _checked(self, components: Sequence[str] | None) -> list[str]:
        """These components, or all; ConfigError when there is no such one."""
        existing = [*self._components, *self._eager]
        names = existing if components is None else list(components)
        if not names or (unknown := sorted(set(names) - set(existing))):
            raise ConfigError(
                "adapters cannot be fused there",
                slug="lora-component",
                received=", ".join(unknown) if names else "no component",
                expected=", ".join(existing),
            )
        return names


METHODS = tuple(name for name in vars(LoraSwitch) if name[0] != "_" and name != "together")
