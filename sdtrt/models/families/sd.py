"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, cross-attention only."""

from sdtrt.models.family import ModelFamily

FAMILY = ModelFamily(
    name="sd",
    prefix="StableDiffusion",
    pipelines={
        "txt2img": "StableDiffusionPipeline",
        "img2img": "StableDiffusionImg2ImgPipeline",
        "inpaint": "StableDiffusionInpaintPipeline",
        "controlnet": "StableDiffusionControlNetPipeline",
    },
    text_encoders=("text_encoder",),
    conditioning=lambda configs: {},
)
