"""What both pages are made with: the files of `page/`, and the names by which a page's own scripts may run."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import PurePath

FOLDERS = {".jinja": "templates", ".js": "scripts", ".css": "styles"}


def asset(name: str) -> str:
    """The text of one file."""
    folder = FOLDERS[PurePath(name).suffix]
    return files("sdtrt.analysis.report").joinpath("page", folder, name).read_text(encoding="utf-8")


def digest(script: str) -> str:
    """How the page's content security policy names a script that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
