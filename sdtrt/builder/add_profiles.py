"""add_profiles(): further sizes for a bundle, by its own recipe; only what depends on them is built anew."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sdtrt import config as configs
from sdtrt import lora
from sdtrt.builder import build
from sdtrt.builder.build_plan import BuildPlan, ComponentPlan, forecast
from sdtrt.bundle import staging
from sdtrt.bundle.bundle import Bundle
from sdtrt.bundle.manifest import MANIFEST
from sdtrt.engines import EngineContext, accuracy
from sdtrt.errors import VerifyError
from sdtrt.shapes.profile_selection import relevant_profiles
from sdtrt.shapes.sample_inputs import sample_inputs
from sdtrt.shapes.spec import ShapeProfile
from sdtrt.system import files, malloc

Progress = Callable[[str, float], None]


def add_profiles(
    bundle: str | os.PathLike[str],
    profiles: Sequence[str],
    *,
    model: str | None = None,
    progress: Progress = lambda label, done: None,
) -> Bundle:
    """Add `profiles`, such as "B=1,H=768,W=1024", to a bundle, in place, and return it.

    A symbol that a profile leaves out is that of the bundle's first. `model` is where the checkpoint lies now, by
    default where it was built from. Raises what `build` raises; whatever is raised, the bundle is as it was.
    """
    return run(plan(bundle, profiles, model), Path(bundle), progress)


def plan(
    bundle: str | os.PathLike[str], profiles: Sequence[str], model: str | None = None, force: bool = False
) -> BuildPlan:
    """What `add_profiles` would do; builds nothing. `force` builds every engine anew."""
    opened = Bundle.open(bundle)
    manifest, built = opened.manifest, opened.manifest.shape_profiles
    asked = [ShapeProfile.parse(text).with_defaults(built[0]) for text in profiles]
    every = [str(p) for p in dict.fromkeys(map(str, (*built, *asked)))]
    config = configs.load(None, **{**manifest.config, "model": model or manifest.model, "profiles": every})
    found = forecast(config, opened.path, force)
    return replace(found, steps=tuple(_explained(step, built, found.profiles) for step in found.steps))


def run(plan: BuildPlan, bundle: Path, progress: Progress = lambda label, done: None) -> Bundle:
    """Carry it out. An engine that is kept must match eager at each of the new sizes that it is to serve."""
    present = Bundle.open(bundle).manifest
    if plan.profiles == present.shape_profiles:
        return build.run(plan, bundle, progress)
    _check_kept(plan, bundle, present.shape_profiles, progress)
    if any(step.action != "reuse" for step in plan.steps):
        return build.run(plan, bundle, progress)
    # No engine changes: a new table of contents is all.
    with staging.staging(bundle):
        now = Bundle.open(bundle).manifest  # another process may have added sizes meanwhile
        every = tuple(dict.fromkeys((*now.profiles, *map(str, plan.profiles))))
        made = now.model_copy(update={"profiles": every, "config": {**now.config, "profiles": list(every)}})
        files.write_text(bundle / MANIFEST, made.model_dump_json(indent=1) + "\n")
    progress("done", 1.0)
    return Bundle.open(bundle)


def _explained(step: ComponentPlan, built: Sequence[ShapeProfile], after: Sequence[ShapeProfile]) -> ComponentPlan:
    """A step with the reason why its engine can stay."""
    if step.action != "reuse" or tuple(built) == tuple(after):
        return step
    same = relevant_profiles(step.spec, built) == relevant_profiles(step.spec, after)
    why = "it does not depend on the new sizes" if same else "its engine takes the new sizes as it is"
    return replace(step, reasons=(why,))


def _check_kept(plan: BuildPlan, bundle: Path, built: Sequence[ShapeProfile], progress: Progress) -> None:
    limit = accuracy.LIMITS[plan.config.precision][0]
    kept = [s for s in plan.steps if s.action == "reuse" and plan.backend.is_numeric]
    for index, step in enumerate(kept):
        spec, old = step.spec, relevant_profiles(step.spec, built)
        new = [p for p in plan.profiles if any(c not in old for c in relevant_profiles(spec, (*built, p)))]
        if not new:
            continue
        progress(f"{spec.name}: comparing with eager at the new sizes", index / len(kept))
        inputs = [sample_inputs(spec, profile.sizes("opt")) for profile in new]
        module = spec.load(plan.folder)
        lora.bake(module, spec, plan.loras, plan.folder)
        wanted = [accuracy.expected(module.float(), given) for given in inputs]
        del module
        malloc.give_back()
        engine = plan.backend.load(bundle / spec.name, EngineContext(spec, plan.profiles, plan.options))
        for profile, given, expected in zip(new, inputs, wanted, strict=True):
            error = accuracy.worst_error(accuracy.run(engine, given), expected)
            if not error <= limit:
                raise VerifyError(
                    f"the engine of {spec.name} differs from eager PyTorch at {profile}",
                    slug="verify-component",
                    received=f"relative error {error:.3g}",
                    expected=f"at most {limit:g}",
                    hint="build every engine anew, for all sizes: the same command with --force",
                )
        engine.close()
