"""Model families: names, inputs and outputs of the components of a checkpoint. One file per family."""

from pathlib import Path

from sdtrt import registry
from sdtrt.errors import ModelError
from sdtrt.models.family import ModelFamily, read_json
from sdtrt.models.meta_modules import skeleton
from sdtrt.models.unet import DOWN, MIDDLE

__all__ = ["DOWN", "MIDDLE", "ModelError", "ModelFamily", "family_of", "load", "names", "read_json", "skeleton"]

FAMILIES = f"{__name__}.families"


def names() -> tuple[str, ...]:
    """Names of the families."""
    return registry.names(FAMILIES)


def load(name: str) -> ModelFamily:
    """The family called `name`."""
    family: ModelFamily = registry.load(FAMILIES, name, ModelError).FAMILY
    return family


def family_of(folder: Path) -> ModelFamily:
    """The family of a diffusers folder, by its `model_index.json`; ModelError when none matches."""
    pipeline = str(read_json(folder / "model_index.json").get("_class_name"))
    for name in names():
        if pipeline in (family := load(name)).pipelines.values():
            return family
    raise ModelError(
        "this kind of pipeline is not supported",
        slug="model-family",
        received=pipeline,
        expected="; ".join(f"{n} ({load(n).prefix}...)" for n in names()),
        hint="use a Stable Diffusion 1.x, 2.x or XL checkpoint",
    )
