"""What NVIDIA's bindings of one release declare: the double shows those names and no others.

TENSORRT_DOUBLE_API names the JSON file that `trt.bindings.declarations` wrote; it holds in child processes as well.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_data = json.loads(Path(os.environ["TENSORRT_DOUBLE_API"]).read_text(encoding="utf-8"))

VERSION: str = _data["version"]
MAJOR, MINOR, PATCH, BUILD = (int(part) for part in VERSION.split(".")[:4])
CLASSES: dict[str, dict[str, Any]] = _data["classes"]
ALIASES: dict[str, str] = _data["aliases"]
FUNCTIONS: dict[str, Any] = _data["functions"]


def members(name: str) -> dict[str, dict[str, Any]]:
    """Members of a class with what it inherits."""
    found: dict[str, dict[str, Any]] = {}
    for owner in reversed((name, *CLASSES[name]["bases"])):
        if owner in CLASSES:
            found |= CLASSES[owner]["members"]
    return found
