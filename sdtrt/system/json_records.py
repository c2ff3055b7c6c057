"""Versioned JSON files: the base of their records, how they are read, and the errors for wrong fields."""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sdtrt.errors import ConfigError, SdtrtError


class Record(BaseModel):
    """Base of all stored records: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


R = TypeVar("R", bound=Record)


def read(path: Path, cls: type[R], version: int, error: type[SdtrtError], hint: str) -> R:
    """Read a record.

    Args:
        path: the JSON file.
        cls: the class of the record.
        version: the only value that its field `format` may have.
        error: the class of the error; its slug starts that of each case, such as "plan-json".
        hint: what the user can do.

    Raises:
        error: when the file is missing, not JSON, of another version, or has a wrong field.
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
    file_version = data.get("format") if isinstance(data, dict) else type(data).__name__
    if file_version != version:
        raise error(
            f"the {what} has another format version",
            slug=f"{what}-format",
            received=f"{file_version} in {path}",
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
    """The dotted name of the first wrong field, its value, and what is expected."""
    first = exc.errors()[0]
    return ".".join(map(str, first["loc"])), first["input"], first["msg"].removeprefix("Input should be ")


def config_error(
    exc: ValidationError, keys: list[str], what: str, hints: Mapping[str, str] | None = None
) -> ConfigError:
    """The error for wrong settings; for an unknown key it lists all keys and suggests the nearest one.

    Args:
        exc: the error of pydantic.
        keys: all keys that exist.
        what: the name of the settings in messages, such as "the options of eager".
        hints: what to do about keys that no longer exist, dotted where they are nested.
    """
    key, received, expected = first_error(exc)
    kind = exc.errors()[0]["type"]
    if kind == "missing":
        return ConfigError(
            f"{key} is missing in {what}", slug="config-missing-key", hint="name it there or as an option"
        )
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(key, keys, n=1)
        return ConfigError(
            f"unknown key {key!r} in {what}",
            slug="config-unknown-key",
            received=key,
            expected=", ".join(keys) or "no keys",
            hint=(hints or {}).get(key) or (f"did you mean {near[0]!r}?" if near else "remove it"),
        )
    return ConfigError(f"{key} is wrong in {what}", slug="config-value", received=received, expected=expected)
