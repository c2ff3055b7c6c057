"""add_profiles(): further sizes for a bundle, by its recipe; only engines that depend on them are built again."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sdtrt import config as configs
from sdtrt import lora
from sdtrt.builder import build
from sdtrt.builder.build_plan import BuildPlan, ComponentPlan
from sdtrt.builder.planning import plan_build
from sdtrt.builder.progress_shares import Progress
from sdtrt.bundle import staging
from sdtrt.bundle.bundle import Bundle
from sdtrt.bundle.manifest import MANIFEST
from sdtrt.engines import EngineContext, accuracy
from sdtrt.errors import VerifyError
from sdtrt.shapes.profile_selection import relevant_profiles
from sdtrt.shapes.sample_inputs import sample_inputs
from sdtrt.shapes.spec import ShapeProfile
from sdtrt.system import files, malloc


def add_profiles(
    bundle: str | os.PathLike[str],
    profiles: Sequence[str],
    *,
    model: str | None = None,
    progress: Progress = lambda label, done: None,
) -> Bundle:
    """Add profiles to a bundle, in place, and return it. Raises what `build` raises; the bundle is then as it was.

    Args:
        bundle: folder of the bundle.
        profiles: sizes, such as "B=1,H=768,W=1024"; symbols that are left out are those of the bundle's first profile.
        model: where the checkpoint is now, by default where the bundle was built from.
        progress: receives a label and the share done, 0 to 1.
    """
    return run(plan(bundle, profiles, model), Path(bundle), progress)


def plan(
    bundle: str | os.PathLike[str], profiles: Sequence[str], model: str | None = None, force: bool = False
) -> BuildPlan:
    """The plan of `add_profiles`; builds nothing.

    Args:
        bundle: folder of the bundle.
        profiles: the sizes to add.
        model: where the checkpoint is now, by default where the bundle was built from.
        force: plan to build every engine again.
    """
    opened = Bundle.open(bundle)
    manifest, built = opened.manifest, opened.manifest.shape_profiles
    added = [ShapeProfile.parse(text).with_defaults(built[0]) for text in profiles]
    every = list(dict.fromkeys(map(str, (*built, *added))))
    config = configs.load(None, **{**manifest.config, "model": model or manifest.model, "profiles": every})
    plan = plan_build(config, opened.path, force)
    return replace(plan, steps=tuple(_with_reason(step, built, plan.profiles) for step in plan.steps))


def run(plan: BuildPlan, bundle: Path, progress: Progress = lambda label, done: None) -> Bundle:
    """Carry out the plan. An engine that is kept must match eager at each of the new sizes that it is to serve."""
    present = Bundle.open(bundle).manifest
    if plan.profiles == present.shape_profiles:
        return build.run(plan, bundle, progress)
    _check_kept(plan, bundle, present.shape_profiles, progress)
    if any(step.action != "reuse" for step in plan.steps):
        return build.run(plan, bundle, progress)
    # No engine changes, only the manifest.
    with staging.staging(bundle):
        now = Bundle.open(bundle).manifest  # another process may have added sizes
        every = tuple(dict.fromkeys((*now.profiles, *map(str, plan.profiles))))
        manifest = now.model_copy(update={"profiles": every, "config": {**now.config, "profiles": list(every)}})
        files.write_text(bundle / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
    progress("done", 1.0)
    return Bundle.open(bundle)


def _with_reason(step: ComponentPlan, built: Sequence[ShapeProfile], after: Sequence[ShapeProfile]) -> ComponentPlan:
    if step.action != "reuse" or tuple(built) == tuple(after):
        return step
    same = relevant_profiles(step.spec, built) == relevant_profiles(step.spec, after)
    reason = "it does not depend on the new sizes" if same else "its engine takes the new sizes as it is"
    return replace(step, reasons=(reason,))


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
        references = [accuracy.expected(module.float(), tensors) for tensors in inputs]
        del module
        malloc.give_back()
        engine = plan.backend.load(bundle / spec.name, EngineContext(spec, plan.profiles, plan.options))
        for profile, tensors, expected in zip(new, inputs, references, strict=True):
            error = accuracy.worst_error(accuracy.run(engine, tensors), expected)
            if not error <= limit:
                raise VerifyError(
                    f"the engine of {spec.name} differs from eager PyTorch at {profile}",
                    slug="verify-component",
                    received=f"relative error {error:.3g}",
                    expected=f"at most {limit:g}",
                    hint="build every engine again, for all sizes: the same command with --force",
                )
        engine.close()
