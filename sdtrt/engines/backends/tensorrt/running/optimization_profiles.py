"""Optimization profiles: the shape ranges of a build, and the choice of one for the shapes of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sdtrt.engines.backends.tensorrt.error_table import ErrorContext
from sdtrt.engines.backends.tensorrt.running.plan_file import ShapeRange
from sdtrt.errors import ShapeError
from sdtrt.shapes.profile_selection import Ranges, nearest, relevant_profiles
from sdtrt.shapes.spec import ComponentSpec, Expr, ShapeProfile, TensorSpec

if TYPE_CHECKING:
    import tensorrt as trt


def plan_profiles(
    spec: ComponentSpec, profiles: Sequence[ShapeProfile], guided_only: bool
) -> tuple[dict[str, ShapeRange], ...]:
    """(min, opt, max) shapes of every input with a symbolic size, one mapping per profile; equal ones only once."""
    symbolic = [t for t in spec.inputs if t.axes()]
    every = [input_ranges(symbolic, profile, guided_only) for profile in relevant_profiles(spec, profiles)]
    return tuple(ranges for index, ranges in enumerate(every) if ranges not in every[:index])


def input_ranges(tensors: Sequence[TensorSpec], profile: ShapeProfile, guided_only: bool) -> dict[str, ShapeRange]:
    """(min, opt, max) shapes of inputs in one profile."""
    return {t.name: _input_range(t, profile, guided_only) for t in tensors}


def plan_indices(spec: ComponentSpec, profiles: Sequence[ShapeProfile], guided_only: bool) -> tuple[int, ...]:
    """The index in the plan of each of `profiles`."""
    built = plan_profiles(spec, profiles, guided_only)
    return tuple(built.index(plan_profiles(spec, [profile], guided_only)[0]) for profile in profiles)


def _input_range(tensor: TensorSpec, profile: ShapeProfile, guided_only: bool) -> ShapeRange:
    low, opt, high = profile.shapes(tensor)
    if guided_only:
        # A "2B" axis starts at one image otherwise: guidance may be off.
        low = tuple(
            d * Expr.parse(s).times if isinstance(s, str) else d for d, s in zip(low, tensor.shape, strict=True)
        )
    return low, opt, high


def engine_profiles(engine: trt.ICudaEngine, inputs: Sequence[str]) -> tuple[dict[str, ShapeRange], ...]:
    """(min, opt, max) shapes of every input in each profile of an engine; the three are equal for a fixed one."""
    fixed = {name: tuple(engine.get_tensor_shape(name)) for name in inputs}
    return tuple(
        {name: _engine_range(engine, name, index) if -1 in fixed[name] else (fixed[name],) * 3 for name in inputs}
        for index in range(engine.num_optimization_profiles)
    )


def _engine_range(engine: trt.ICudaEngine, name: str, index: int) -> ShapeRange:
    low, opt, high = (tuple(dims) for dims in engine.get_tensor_profile_shape(name, index))
    return low, opt, high


def choose(shapes: Mapping[str, tuple[int, ...]], profiles: Sequence[Ranges], context: ErrorContext) -> int:
    """The index of the nearest profile; a ShapeError that lists all profiles when none fits."""
    index = nearest(shapes, profiles)
    if index is not None:
        return index
    raise ShapeError(
        f"{context.name}: no optimization profile of the engine takes these shapes",
        slug="outside-profile",
        received=", ".join(f"{n} {format_shape(s)}" for n, s in shapes.items()),
        expected=" or ".join(f"[{i}] {describe(p)}" for i, p in enumerate(profiles)),
        hint=f'choose shapes within these, or add a profile: {context.rebuild} --add-profile "..."',
    )


def describe(profile: Ranges) -> str:
    """Inputs with their smallest and largest shapes."""
    return ", ".join(
        f"{n} {format_shape(low)}" if low == high else f"{n} {format_shape(low)} to {format_shape(high)}"
        for n, (low, _, high) in profile.items()
    )


def format_shape(shape: Sequence[int]) -> str:
    """A shape as trtexec writes it: 2x4x64x64."""
    return "x".join(map(str, shape)) or "scalar"
