"""BuildConfig: a build recipe, from YAML and from arguments. An unknown key is an error that lists the keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from sdtrt.errors import ConfigError
from sdtrt.shapes.spec import ShapeProfile
from sdtrt.system.json_records import Record, config_error


class LoraEntry(Record):
    """A LoRA to build in, and how strongly: any number, also a negative one."""

    path: str = Field(description='.safetensors file, "owner/name" or "owner/name/FILE.safetensors" on the hub')
    scale: float = Field(1.0, allow_inf_nan=False, description="factor of what it adds")

    @classmethod
    def parse(cls, text: str) -> LoraEntry:
        """Parse "FILE" or "FILE:SCALE"."""
        path, _, scale = text.rpartition(":")
        try:
            return cls(path=path, scale=float(scale)) if path else cls(path=text)
        except ValueError:  # the colon is the path's
            return cls(path=text)


# Precisions in which some layers of the U-Net compute on rounded numbers; all else is fp16.
QUANTIZED = ("int8", "fp8")
PROMPTS = (
    "a photograph of a lighthouse at dusk, waves breaking on the rocks",
    "portrait of an old woman laughing, studio light, 85 mm",
    "a watercolour of a village in the mountains, spring",
    "a bowl of ramen with an egg, seen from above",
    "a red fox in deep snow, wildlife photograph",
    "the interior of a library with high windows, ink drawing",
    "a city street at night in the rain, neon signs",
    "a small robot reading a book, 3D render",
)


# Keys that had other names in the recipes of earlier checkouts.
RENAMED = {"calibration.keep": "calibration.exclude", "calibration.most_error": "calibration.max_error"}


class Calibration(Record):
    """How the ranges of quantized layers are found: real images are made with the checkpoint's own pipeline."""

    prompts: tuple[str, ...] = Field(PROMPTS, min_length=1, description="taken in turn; best those of later use")
    images: int = Field(8, ge=1, description="images made in all; 128 is NVIDIA's number for fp8, 32 for int8")
    steps: int = Field(20, ge=1, description="denoising steps of each")
    algorithm: Literal["max", "smoothquant"] = Field(
        "max", description="smoothquant moves outliers of a layer's input into its weight: helps int8, costs a Mul"
    )
    exclude: tuple[str, ...] = Field(
        ("time_emb_proj", "time_embedding", "add_embedding", "conv_in", "conv_out", "conv_shortcut", "proj_out"),
        description="a layer whose name holds one of these stays fp16: they cost little time and much quality",
    )
    max_error: float | None = Field(
        None, gt=0, description="inductor: the worst layers stay fp16 until the others put the output off by this share"
    )


class BuildConfig(Record):
    """What to build and how. `None` means: the default of the model or of the backend."""

    model: str = Field(description="hub id, local diffusers folder, or single-file .safetensors checkpoint")
    revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    variant: str | None = Field(None, description='weight variant of the checkpoint, such as "fp16"')
    backend: str = Field("onnxruntime", description="an engine backend: see `sdtrt doctor`")
    precision: Literal["fp32", "fp16", "fp8", "int8"] = Field(
        "fp32", description="type of the graph; VAEs that overflow stay fp32; fp8 and int8 are the U-Net's alone"
    )
    calibration: Calibration = Field(Calibration(), description="how fp8 and int8 find the ranges of layers")
    profiles: tuple[str, ...] = Field((), description='shape profiles, such as "B=1:1:4,H=256:512:768,W=256:512:768"')
    components: tuple[str, ...] | None = Field(None, description="build only these; the rest of the bundle is kept")
    opset: int | None = Field(None, ge=18, le=23, description="ONNX opset; the backend knows its best")
    passes: tuple[str, ...] | None = Field(None, description="graph passes, in order; the backend knows its own")
    float32: tuple[str, ...] = Field(
        (), description='modules that stay float32 in a half precision graph, such as "mid_block" or "*.attn1.sdpa"'
    )
    lora: tuple[LoraEntry, ...] = Field((), description='LoRAs to build in: "FILE:SCALE", or path and scale')
    controlnet: tuple[str, ...] | None = Field(
        None, description="ControlNets to build in, hub ids or folders; [] builds a U-Net that takes those of diffusers"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="options of the backend")
    profile_runs: int = Field(10, ge=1, description="runs per component for the layer times in plan.json")
    verify_steps: int = Field(4, ge=0, description="steps of the test image at the end of a build; 0 leaves it out")

    @field_validator("lora", mode="before")
    @classmethod
    def _parsed(cls, entries: Any) -> Any:
        listed = isinstance(entries, list | tuple)
        return [LoraEntry.parse(e) if isinstance(e, str) else e for e in entries] if listed else entries

    @field_validator("profiles")
    @classmethod
    def _readable(cls, profiles: tuple[str, ...]) -> tuple[str, ...]:
        for text in profiles:
            ShapeProfile.parse(text)
        return profiles

    @property
    def quantized(self) -> bool:
        """Whether layers are to be quantized."""
        return self.precision in QUANTIZED


def recipe_path(path: Path) -> Path:
    """The file of a recipe: of a shipped one for a bare name such as "sdxl_inductor_fp8", else `path` itself.

    A bare name has no folder and no suffix, and is not a file in the working directory. Raises ConfigError for an
    unknown one.
    """
    if path.parent != Path() or path.suffix or path.is_file():
        return path
    shipped = {file.stem: file for file in sorted((Path(__file__).parent / "configs").glob("*.yaml"))}
    if path.name not in shipped:
        raise ConfigError(
            "no recipe has this name",
            slug="config-missing",
            received=path.name,
            expected=f"a YAML file or one of: {', '.join(shipped)}",
            hint="use one of these names, or write a file's name with its suffix",
        )
    return shipped[path.name]


def load(path: Path | None = None, **overrides: Any) -> BuildConfig:
    """Read a YAML recipe and put `overrides` that are not None over it; ConfigError says which key is wrong.

    `path` is a file or the name of a shipped recipe.
    """
    data: Any = {}
    if path is not None:
        path = recipe_path(path)
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except OSError as exc:
            raise ConfigError(
                f"the config cannot be read: {exc.strerror}", slug="config-missing", received=path
            ) from exc
        except yaml.YAMLError as exc:
            raise ConfigError("the config is not YAML", slug="config-yaml", received=path, expected=str(exc)) from exc
    if not isinstance(data, dict):
        raise ConfigError("the config is not a mapping", received=type(data).__name__, expected="key: value lines")
    data |= {k: v for k, v in overrides.items() if v is not None}
    try:
        return BuildConfig.model_validate(data)
    except ValidationError as exc:
        hints = {former: f"did you mean {now!r}?" for former, now in RENAMED.items()}
        raise config_error(exc, list(BuildConfig.model_fields), str(path or "the arguments"), hints) from exc
