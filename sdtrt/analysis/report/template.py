"""Templates, styles and scripts of the report and the comparison page, and the digests that allow a script to run."""

import base64
import hashlib
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template

FOLDERS = {".jinja": "templates", ".js": "scripts", ".css": "styles"}


def asset(name: str) -> str:
    """The text of one file."""
    folder = FOLDERS[PurePath(name).suffix]
    return files("sdtrt.analysis.report").joinpath("page", folder, name).read_text(encoding="utf-8")


def template(name: str, **filters: Any) -> Template:
    """A page template with its filters; `digest` is always one of them."""
    page = Environment(
        loader=FunctionLoader(asset), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page.filters.update(filters, digest=digest)
    return page.get_template(name)


def digest(script: str) -> str:
    """How the page's content security policy names a script that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
