"""Versioned JSON files: one base for what they hold, one way to read them, one way to say what is wrong with them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sdtrt.errors import ConfigError, SdtrtError


class Record(BaseModel):
    """Base of everything that is stored: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


R = TypeVar("R", bound=Record)


def read(path: Path, cls: type[R], version: int, error: type[SdtrtError], hint: str) -> R:
    """Read a record whose `format` is `version`.

    Raises `error`, with a slug that starts with its own ("plan-json"), when the file is missing, not JSON, of another
    version, or has a wrong field.
    """
    what = error.slug
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise error(
            f"no {what} can be read here: {exc.strerror}", slug=f"{what}-missing", received=path, hint=hint
        ) from exc
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as exc:
        raise error(
            f"the {what} is not JSON", slug=f"{what}-json", received=path, expected=str(exc)[:200], hint=hint
        ) from exc
    found = data.get("format") if isinstance(data, dict) else type(data).__name__
    if found != version:
        raise error(
            f"the {what} has another format version",
            slug=f"{what}-format",
            received=f"{found} in {path}",
            expected=version,
            hint=f"{hint}, or use the version of sdtrt that wrote it",
        )
    try:
        return cls.model_validate(data)
    except ValidationError as exc:
        field, received, expected = first_error(exc)
        raise error(
            f"a field of the {what} is wrong: {field}",
            slug=f"{what}-field",
            received=f"{str(received)[:80]!r} in {path}",
            expected=expected,
            hint=hint,
        ) from exc


def first_error(exc: ValidationError) -> tuple[str, object, str]:
    """The dotted name of the first wrong field, what stood there, and what is expected."""
    first = exc.errors()[0]
    return ".".join(map(str, first["loc"])), first["input"], first["msg"].removeprefix("Input should be ")


def config_error(
    exc: ValidationError, keys: list[str], what: str, renamed: Mapping[str, str] | None = None
) -> ConfigError:
    """The error for settings that are wrong; an unknown key is answered with all keys and the nearest one.

    Args:
        exc: what pydantic found.
        keys: all keys that exist.
        what: where the settings stand, for people.
        renamed: new names of keys by their former ones, dotted where they are nested.
    """
    key, received, expected = first_error(exc)
    kind = exc.errors()[0]["type"]
    if kind == "missing":
        return ConfigError(
            f"{key} is missing in {what}", slug="config-missing-key", hint="name it there or as an option"
        )
    if kind == "extra_forbidden":
        near = [(renamed or {})[key]] if key in (renamed or {}) else difflib.get_close_matches(key, keys, n=1)
        return ConfigError(
            f"unknown key {key!r} in {what}",
            slug="config-unknown-key",
            received=key,
            expected=", ".join(keys) or "no keys",
            hint=f"did you mean {near[0]!r}?" if near else "remove it",
        )
    return ConfigError(f"{key} is wrong in {what}", slug="config-value", received=received, expected=expected)
