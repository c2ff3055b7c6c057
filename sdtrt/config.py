"""BuildConfig: a build recipe, from YAML and from arguments. An unknown key is an error that lists the keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from sdtrt.errors import ConfigError
from sdtrt.records import Record, config_error
from sdtrt.spec import ShapeProfile


class BuildConfig(Record):
    """What to build and how. `None` means: the default of the model or of the backend."""

    model: str = Field(description="hub id, local diffusers folder, or single-file .safetensors checkpoint")
    revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    variant: str | None = Field(None, description='weight variant of the checkpoint, such as "fp16"')
    backend: str = Field("onnxruntime", description="an engine backend: see `sdtrt doctor`")
    precision: Literal["fp32", "fp16"] = Field("fp32", description="dtype of the graph; VAEs that overflow stay fp32")
    profiles: tuple[str, ...] = Field((), description='shape profiles, such as "B=1:1:4,H=256:512:768,W=256:512:768"')
    components: tuple[str, ...] | None = Field(None, description="build only these; the rest of the bundle is kept")
    opset: int | None = Field(None, ge=18, le=23, description="ONNX opset; the backend knows its best")
    passes: tuple[str, ...] | None = Field(None, description="graph passes, in order; the backend knows its own")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the backend")
    profile_runs: int = Field(10, ge=1, description="runs per component for the layer times in plan.json")
    verify_steps: int = Field(4, ge=0, description="steps of the test image at the end of a build; 0 leaves it out")

    @field_validator("profiles")
    @classmethod
    def _readable(cls, profiles: tuple[str, ...]) -> tuple[str, ...]:
        for text in profiles:
            ShapeProfile.parse(text)
        return profiles


def load(path: Path | None = None, **overrides: Any) -> BuildConfig:
    """Read a YAML recipe and put `overrides` that are not None over it; ConfigError says which key is wrong."""
    data: Any = {}
    if path is not None:
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except OSError as exc:
            raise ConfigError(
                "the config cannot be read", slug="config-missing", received=path, hint=exc.strerror
            ) from exc
        except yaml.YAMLError as exc:
            raise ConfigError("the config is not YAML", slug="config-yaml", received=path, hint=str(exc)) from exc
    if not isinstance(data, dict):
        raise ConfigError("the config is not a mapping", received=type(data).__name__, expected="key: value lines")
    data |= {k: v for k, v in overrides.items() if v is not None}
    try:
        return BuildConfig.model_validate(data)
    except ValidationError as exc:
        raise config_error(exc, list(BuildConfig.model_fields), str(path or "the arguments")) from exc
