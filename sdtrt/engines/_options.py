"""Backend options: one pydantic model per backend, one message for a wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sdtrt.errors import ConfigError


class Options(BaseModel):
    """Base of the options of a backend; empty where a backend has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


T = TypeVar("T", bound=Options)


def parse(cls: type[T], backend: str, options: Mapping[str, Any]) -> T:
    """Validate; ConfigError names the option and lists those that exist."""
    try:
        return cls.model_validate(dict(options))
    except ValidationError as exc:
        first = exc.errors()[0]
        raise ConfigError(
            f"option {'.'.join(map(str, first['loc']))!r} of {backend} is wrong: {first['msg']}",
            slug="backend-option",
            received=first["input"],
            expected=", ".join(cls.model_fields) or "no options",
        ) from exc
