"""What a bundle can do about a size that it was not built for: say what adding it costs, or lend the checkpoint."""

from __future__ import annotations

import shlex
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from rich.filesize import decimal

from sdtrt import lora, models
from sdtrt.bundle.bundle import Bundle
from sdtrt.bundle.manifest import Memory
from sdtrt.config import LoraEntry
from sdtrt.engines import Backend
from sdtrt.errors import BundleError, ConfigError
from sdtrt.models import checkpoint
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile

if TYPE_CHECKING:
    from torch import nn

OnUnsupportedSize = Literal["error", "eager"]


def check(mode: str) -> None:
    """ConfigError unless `mode` is one of the two."""
    if mode not in ("error", "eager"):
        raise ConfigError("no such answer to a size that was not built", received=mode, expected="error or eager")


def describe_add_profile(bundle: Bundle, specs: Mapping[str, ComponentSpec], backend: Backend, text: str) -> str:
    """The command that adds the profile `text` to a bundle, what that rebuilds, and what is known of its cost."""
    manifest = bundle.manifest
    built = manifest.shape_profiles
    asked = ShapeProfile.parse(text).with_defaults(built[0])
    after = (*built, asked)
    keys = {n: [backend.sizes_key(specs[n], p) for p in (built, after)] for n in manifest.components}
    anew = [n for n, (old, new) in keys.items() if old != new]
    kept = [n for n in manifest.components if n not in anew]
    command = f'sdtrt build {shlex.quote(str(bundle.path))} --add-profile "{text}"'
    if not anew:
        free = f"no engine is rebuilt: those of {backend.name} take this size as they are"
        return "\n    ".join([command, free, _activations(bundle, specs, asked)])
    records = [manifest.components[n] for n in anew]
    seconds = None if not all(r.seconds for r in records) else sum(sum(r.seconds.values()) for r in records)
    count = sum(f.bytes for r in records for f in r.files.values())
    number = f"{len(built)} profile{'s' * (len(built) > 1)}"
    lines = [
        command,
        f"rebuilt: {', '.join(anew)}; kept: {', '.join(kept) or 'nothing'}",
        f"their last build, with {number}: {duration(seconds)}, {decimal(count)} on disk",
        _activations(bundle, specs, asked),
    ]
    return "\n    ".join(lines)


def _activations(bundle: Bundle, specs: Mapping[str, ComponentSpec], asked: ShapeProfile) -> str:
    """What the graphs' tensors take at one size, of all components that have an image size."""
    found = []
    for name, component in bundle.manifest.components.items():
        if "H" not in specs[name].symbols:
            continue
        known = at_size(component.memory, asked.sizes("max"))
        found.append(f"{name} unknown" if known is None else f"{name} {known[0]} {known[1] / 1e6:,.0f} MB")
    return f"activations at this size: {', '.join(found)}"


def duration(seconds: float | None) -> str:
    """Seconds for people; unknown ones are called so."""
    if seconds is None:
        return "an unknown time"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def eager(bundle: Bundle, spec: ComponentSpec, model: str | None) -> Callable[[], nn.Module]:
    """A loader of the checkpoint's own module for one component, in the type of its engine and with its LoRAs.

    `model` is where the checkpoint lies now, by default where it was built from. The loader raises ModelError when it
    cannot be found and BundleError when its weights are others.
    """

    def load() -> nn.Module:
        manifest = bundle.manifest
        config = manifest.config
        folder = checkpoint.resolve(model or manifest.model, config.get("revision"), config.get("variant"))
        built = manifest.components[spec.name].key["weights"]
        if (found := checkpoint.weights_digest(folder, spec.attribute)) != built:
            raise BundleError(
                f"the weights of {spec.attribute} are not those that the bundle was built from",
                slug="fallback-other-weights",
                received=f"{found} in {folder}",
                expected=built,
                hint="name the right checkpoint with model=, or --model",
            )
        module = spec.load(folder)
        entries = [LoraEntry.model_validate(e) for e in config.get("lora", ())]
        specs = models.load(manifest.family).components(folder, manifest.precision)
        lora.bake(module, spec, lora.baked(entries, specs, folder), folder)
        return module

    return load


Bound = Literal["at least", "at most", "about"]


def at_size(memory: Memory | None, sizes: Mapping[str, int]) -> tuple[Bound, float] | None:
    """Bytes of activations at other sizes than were recorded, and how they bound the true ones; None when unknown.

    They grow with the images. Of each image some do not depend on the pixels, some grow with them, and some, of
    attention that is written out, with their square. So bytes, and bytes per pixel, are convex functions of the pixels,
    which lie above the line through two known points outside of them, and below it between them. From one known
    point they are about in proportion.
    """
    rates = dict(sorted(_per_pixel(memory, sizes.get("T"))))
    pixels, known = sizes["H"] * sizes["W"], list(rates)
    if not known:
        return None
    if pixels in rates or len(known) == 1:
        return _if_any("about", rates.get(pixels, rates[known[0]]) * pixels * sizes["B"])
    low = max(min(bisect_left(known, pixels) - 1, len(known) - 2), 0)
    one, other = known[low : low + 2]  # the two nearest
    along = (pixels - one) / (other - one)  # share of the way from the one to the other
    by_rate = (rates[one] + along * (rates[other] - rates[one])) * pixels
    by_bytes = rates[one] * one + along * (rates[other] * other - rates[one] * one)
    if known[0] < pixels < known[-1]:
        return _if_any("at most", min(by_rate, by_bytes) * sizes["B"])
    return _if_any("at least", max(by_rate, by_bytes) * sizes["B"])


def _if_any(bound: Bound, count: float) -> tuple[Bound, float] | None:
    return (bound, count) if count > 0 else None


def _per_pixel(memory: Memory | None, tokens: int | None) -> Iterator[tuple[int, float]]:
    """Pixels, and bytes per image and pixel, at recorded sizes with that many tokens."""
    for m in memory.profiles if memory else ():
        for point, count in (("opt", m.activation_opt_bytes), ("max", m.activation_max_bytes)):
            at = ShapeProfile.parse(m.profile).sizes(point)
            if count is not None and at.get("T") == tokens:
                pixels = at["H"] * at["W"]
                yield pixels, count / (pixels * at["B"])
