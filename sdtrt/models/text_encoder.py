"""CLIP text encoders: token ids in; last hidden state, pooled state and all hidden states out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

from sdtrt.shapes.spec import ComponentSpec, TensorSpec


def spec(name: str, config: Mapping[str, Any], dtype: str) -> ComponentSpec:
    """Spec of one text encoder. All hidden states are an output, so that `clip_skip` works at run time."""
    tokens, width, layers = config["max_position_embeddings"], config["hidden_size"], config["num_hidden_layers"]
    projected = "CLIPTextModelWithProjection" in config.get("architectures", ())
    pooled = TensorSpec("text_embeds", ("B", config["projection_dim"]), dtype)
    return ComponentSpec(
        name=name,
        attribute=name,
        inputs=(TensorSpec("input_ids", ("B", tokens), "int64"),),
        outputs=(
            TensorSpec("last_hidden_state", ("B", tokens, width), dtype),
            pooled if projected else TensorSpec("pooler_output", ("B", width), dtype),
            TensorSpec("hidden_states", (layers + 1, "B", tokens, width), dtype),
        ),
        dtype=dtype,
        load=lambda folder: _load(folder / name, dtype, projected),
    )


def _load(folder: Path, dtype: str, projected: bool) -> nn.Module:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    from sdtrt.models.exportable_modules import TextEncoder, from_pretrained

    return TextEncoder(from_pretrained(CLIPTextModelWithProjection if projected else CLIPTextModel, folder, dtype))
