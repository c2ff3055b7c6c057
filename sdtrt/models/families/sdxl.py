"""Stable Diffusion XL, base and refiner: two text encoders, pooled embeddings and micro-conditioning (time ids)."""

from sdtrt.models.family import Configs, ModelFamily


def conditioning(configs: Configs) -> dict[str, int]:
    """Widths of the pooled text embedding and of the time ids.

    The U-Net's embedding takes the pooled embedding and each time id as `addition_time_embed_dim` sines and cosines:
    6 ids (sizes and crop) in the base model, 5 (with an aesthetic score) in the refiner.
    """
    unet = configs["unet"]
    pooled = configs["text_encoder_2"]["projection_dim"]
    ids = (unet["projection_class_embeddings_input_dim"] - pooled) // unet["addition_time_embed_dim"]
    return {"text_embeds": int(pooled), "time_ids": int(ids)}


FAMILY = ModelFamily(
    name="sdxl",
    prefix="StableDiffusionXL",
    pipelines={
        "txt2img": "StableDiffusionXLPipeline",
        "img2img": "StableDiffusionXLImg2ImgPipeline",
        "inpaint": "StableDiffusionXLInpaintPipeline",
        "controlnet": "StableDiffusionXLControlNetPipeline",
    },
    text_encoders=("text_encoder", "text_encoder_2"),
    conditioning=conditioning,
)
