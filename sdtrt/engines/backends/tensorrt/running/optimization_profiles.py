"""Optimization profiles: from the sizes of a build, and the one that a call's shapes fit at run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sdtrt.engines.backends.tensorrt.running.plan_file import Shapes
from sdtrt.errors import ShapeError
from sdtrt.shapes.profile_selection import Ranges, nearest, relevant_profiles
from sdtrt.shapes.spec import ComponentSpec, Expr, ShapeProfile, TensorSpec

if TYPE_CHECKING:
    import tensorrt as trt


def ranges(spec: ComponentSpec, profiles: Sequence[ShapeProfile], guided_only: bool) -> tuple[dict[str, Shapes], ...]:
    """(min, opt, max) shapes of every input with a symbolic size, one mapping per profile; equal ones only once."""
    symbolic = [t for t in spec.inputs if t.axes()]
    made = [shapes(symbolic, profile, guided_only) for profile in relevant_profiles(spec, profiles)]
    return tuple(found for index, found in enumerate(made) if found not in made[:index])


def shapes(tensors: Sequence[TensorSpec], profile: ShapeProfile, guided_only: bool) -> dict[str, Shapes]:
    """(min, opt, max) shapes of inputs in one profile."""
    return {t.name: _shapes(t, profile, guided_only) for t in tensors}


def places(spec: ComponentSpec, profiles: Sequence[ShapeProfile], guided_only: bool) -> tuple[int, ...]:
    """Which profile of the plan each of `profiles` became."""
    wanted = ranges(spec, profiles, guided_only)
    return tuple(wanted.index(ranges(spec, [profile], guided_only)[0]) for profile in profiles)


def _shapes(tensor: TensorSpec, profile: ShapeProfile, guided_only: bool) -> Shapes:
    low, opt, high = profile.shapes(tensor)
    if guided_only:
        # A "2B" axis starts at one image otherwise: guidance may be off.
        low = tuple(
            d * Expr.parse(s).times if isinstance(s, str) else d for d, s in zip(low, tensor.shape, strict=True)
        )
    return low, opt, high


def of_engine(engine: trt.ICudaEngine, inputs: Sequence[str]) -> tuple[dict[str, Shapes], ...]:
    """(min, opt, max) shapes of every input in each profile of an engine; three times the same for a fixed one."""
    fixed = {name: tuple(engine.get_tensor_shape(name)) for name in inputs}
    return tuple(
        {name: _range(engine, name, index) if -1 in fixed[name] else (fixed[name],) * 3 for name in inputs}
        for index in range(engine.num_optimization_profiles)
    )


def _range(engine: trt.ICudaEngine, name: str, index: int) -> Shapes:
    low, opt, high = (tuple(dims) for dims in engine.get_tensor_profile_shape(name, index))
    return low, opt, high


def choose(shapes: Mapping[str, tuple[int, ...]], profiles: Sequence[Ranges], what: str, rebuild: str) -> int:
    """The nearest profile, else ShapeError lists all."""
    chosen = nearest(shapes, profiles)
    if chosen is not None:
        return chosen
    raise ShapeError(
        f"{what}: no optimization profile of the engine takes these shapes",
        slug="outside-profile",
        received=", ".join(f"{n} {by_x(s)}" for n, s in shapes.items()),
        expected=" or ".join(f"[{i}] {describe(p)}" for i, p in enumerate(profiles)),
        hint=f'choose shapes from there, or add a profile: {rebuild} --add-profile "..."',
    )


def describe(profile: Ranges) -> str:
    """Inputs with their least and largest shapes."""
    return ", ".join(
        f"{n} {by_x(low)}" if low == high else f"{n} {by_x(low)} to {by_x(high)}"
        for n, (low, _, high) in profile.items()
    )


def by_x(shape: Sequence[int]) -> str:
    """A shape as trtexec writes it: 2x4x64x64."""
    return "x".join(map(str, shape)) or "scalar"
