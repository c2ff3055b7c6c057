"""Tasks of a pipeline (txt2img, img2img, inpaint, controlnet), and which bundles can do them."""

from collections.abc import Mapping
from typing import Any, Literal

from sdtrt import models
from sdtrt.bundle.bundle import Bundle
from sdtrt.errors import BundleError, ConfigError

Task = Literal["txt2img", "img2img", "inpaint", "controlnet"]


def choose(bundle: Bundle, task: Task | None, has_controlnet: bool) -> str:
    """The task, or the one that the checkpoint was trained for when it is None.

    `has_controlnet`: whether the caller has a ControlNet. Raises ConfigError for a task that does not exist and
    BundleError for one that the bundle was not built for, with the command of the build that it needs.
    """
    family = models.load(bundle.manifest.family)
    own = family.own_task(bundle.pipeline_folder)
    task_name = task or own
    if task_name not in family.pipelines:
        raise ConfigError("no such task", slug="task", received=task_name, expected=", ".join(family.pipelines))
    if own == "inpaint" and task_name != own:
        raise BundleError(
            "the U-Net of this bundle fills in masks and can do nothing else",
            slug="task-unet",
            received=f"task={task_name!r}",
            expected="task='inpaint'",
            hint="build another checkpoint for this task",
        )
    if task_name == "controlnet":
        check_controlnet(bundle, has_controlnet)
    return task_name


def check_controlnet(bundle: Bundle, has_controlnet: bool) -> None:
    """BundleError unless the U-Net takes residuals and there is a ControlNet that computes them."""
    rebuild = f"sdtrt build {bundle.manifest.model} --out {bundle.path} --controlnet ID_OR_FOLDER"
    if bundle.controlnets is None:
        raise BundleError(
            "the U-Net of this bundle takes no residuals of a ControlNet",
            slug="controlnet-unet",
            received="task='controlnet'",
            expected="a bundle that was built with `controlnet:`",
            hint=f"build it so: {rebuild}",
        )
    if not has_controlnet and not bundle.controlnets.keys() & bundle.manifest.components.keys():
        raise BundleError(
            "this bundle holds no ControlNet",
            slug="controlnet-missing",
            received="task='controlnet'",
            expected="load(bundle, task='controlnet', controlnet=ControlNetModel.from_pretrained(...))",
            hint=f"or build one in: {rebuild}",
        )


def sample_call(pipe: Any, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Arguments of a comparison image besides the prompt: a picture and a mask for inpainting U-Nets, else none."""
    import torch

    if pipe.unet.config.in_channels != 2 * pipe.vae.config.latent_channels + 1:
        return {}
    rows, columns = torch.linspace(0, 1, sizes["H"])[:, None], torch.linspace(0, 1, sizes["W"])[None]
    picture = torch.stack([rows + 0 * columns, 0 * rows + columns, rows * columns])[None]
    mask = (columns + 0 * rows > 0.5).float()[None, None]  # the right half is painted
    return {"image": picture, "mask_image": mask, "strength": 1.0}
