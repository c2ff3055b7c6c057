"""Sizes that a bundle was not built for: what adding a profile takes, and the checkpoint's modules as a fallback."""

from __future__ import annotations

import shlex
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from rich.filesize import decimal

from sdtrt import lora, models
from sdtrt.bundle.bundle import Bundle
from sdtrt.bundle.manifest import Memory
from sdtrt.engines import Backend
from sdtrt.errors import BundleError, ConfigError
from sdtrt.models import checkpoint
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile

if TYPE_CHECKING:
    from torch import nn

OnUnsupportedSize = Literal["error", "eager"]


def check(mode: str) -> None:
    """ConfigError unless `mode` is a value of `on_unsupported_size`."""
    if mode not in ("error", "eager"):
        raise ConfigError("no such answer to a size that was not built", received=mode, expected="error or eager")


def describe_add_profile(bundle: Bundle, specs: Mapping[str, ComponentSpec], backend: Backend, text: str) -> str:
    """Describe, in lines of text, the command that adds a profile to a bundle, what it rebuilds and what that takes.

    Args:
        bundle: the bundle without the profile.
        specs: its components by name.
        backend: the backend of its engines.
        text: the profile, such as "H=768,W=768".
    """
    manifest = bundle.manifest
    built = manifest.shape_profiles
    profile = ShapeProfile.parse(text).with_defaults(built[0])
    keys = {n: [backend.sizes_key(specs[n], p) for p in (built, (*built, profile))] for n in manifest.components}
    rebuilt = [n for n, (old, new) in keys.items() if old != new]
    kept = [n for n in keys if n not in rebuilt]
    command = f'sdtrt build {shlex.quote(str(bundle.path))} --add-profile "{text}"'
    if rebuilt:
        records = [manifest.components[n] for n in rebuilt]
        seconds = sum(sum(r.seconds.values()) for r in records) if all(r.seconds for r in records) else None
        disk_bytes = sum(f.bytes for r in records for f in r.files.values())
        profiles = f"{len(built)} profile{'s' * (len(built) > 1)}"
        lines = [
            f"rebuilt: {', '.join(rebuilt)}; kept: {', '.join(kept) or 'nothing'}",
            f"their last build, with {profiles}: {duration(seconds)}, {decimal(disk_bytes)} on disk",
        ]
    else:
        lines = [f"no engine is rebuilt: those of {backend.name} take this size as they are"]
    return "\n    ".join([command, *lines, _describe_activations(bundle, specs, profile)])


def _describe_activations(bundle: Bundle, specs: Mapping[str, ComponentSpec], profile: ShapeProfile) -> str:
    """Activation memory at the profile's largest size, of all components that have an image size."""
    texts = []
    for name, component in bundle.manifest.components.items():
        if "H" not in specs[name].symbols:
            continue
        estimate = estimate_activation_bytes(component.memory, profile.sizes("max"))
        texts.append(f"{name} unknown" if estimate is None else f"{name} {estimate[0]} {estimate[1] / 1e6:,.0f} MB")
    return f"activations at this size: {', '.join(texts)}"


def duration(seconds: float | None) -> str:
    """A time in seconds as text."""
    if seconds is None:
        return "an unknown time"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def eager(bundle: Bundle, spec: ComponentSpec, model: str | None) -> Callable[[], nn.Module]:
    """A loader of the checkpoint's own module for one component, in the dtype of its engine and with its LoRAs.

    `model` is where the checkpoint lies now, by default where it was at the build. The loader raises ModelError when it
    is not there and BundleError when its weights differ from those of the build.
    """

    def load() -> nn.Module:
        manifest, folder = bundle.manifest, bundle.checkpoint(model)
        built = manifest.components[spec.name].key["weights"]
        if (digest := checkpoint.weights_digest(folder, spec.attribute)) != built:
            raise BundleError(
                f"the weights of {spec.attribute} are not those that the bundle was built from",
                slug="fallback-other-weights",
                received=f"{digest} in {folder}",
                expected=built,
                hint="name the right checkpoint with model=, or --model",
            )
        module = spec.load(folder)
        specs = models.load(manifest.family).components(folder, manifest.precision)
        lora.bake(module, spec, lora.baked(manifest.build_config.lora, specs, folder), folder)
        return module

    return load


Bound = Literal["at least", "at most", "about"]


def estimate_activation_bytes(memory: Memory | None, sizes: Mapping[str, int]) -> tuple[Bound, float] | None:
    """Estimate the bytes of activations at other sizes than those of the build; None when unknown.

    They grow with the images. The activations of one image are constant, or grow with its pixels, or, in attention that
    is not fused, with the square of the pixels. So bytes, and bytes per pixel, are convex functions of the pixels: such
    a function lies above the line through two recorded points outside of them, and below it between them. From one
    recorded point the estimate is in proportion.
    """
    rates = dict(sorted(_bytes_per_pixel(memory, sizes.get("T"))))
    pixels, recorded = sizes["H"] * sizes["W"], list(rates)
    if not recorded:
        return None
    bound: Bound = "about"
    if pixels in rates or len(recorded) == 1:
        image_bytes = rates.get(pixels, rates[recorded[0]]) * pixels
    else:
        low = max(min(bisect_left(recorded, pixels) - 1, len(recorded) - 2), 0)
        first, second = recorded[low : low + 2]  # the two nearest
        share = (pixels - first) / (second - first)  # of the way from the first to the second
        by_rate = (rates[first] + share * (rates[second] - rates[first])) * pixels
        by_bytes = rates[first] * first + share * (rates[second] * second - rates[first] * first)
        between = recorded[0] < pixels < recorded[-1]
        bound, image_bytes = ("at most", min(by_rate, by_bytes)) if between else ("at least", max(by_rate, by_bytes))
    return (bound, image_bytes * sizes["B"]) if image_bytes > 0 else None


def _bytes_per_pixel(memory: Memory | None, tokens: int | None) -> Iterator[tuple[int, float]]:
    """Pixels, and bytes per image and pixel, at recorded sizes with that many tokens."""
    for m in memory.profiles if memory else ():
        for point, count in (("opt", m.activation_opt_bytes), ("max", m.activation_max_bytes)):
            at = ShapeProfile.parse(m.profile).sizes(point)
            if count is not None and at.get("T") == tokens:
                pixels = at["H"] * at["W"]
                yield pixels, count / (pixels * at["B"])
