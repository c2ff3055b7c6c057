"""Module paths as steps: "down_blocks.1.attentions.0.norm" has three, since an index belongs to the name before it."""

import re

NO_MODULE = "(no module)"
_STEP = re.compile(r"\.(?!\d)")


def module_path(module: str | None) -> tuple[str, ...]:
    """The steps of a module: "attentions.0.norm" gives ("attentions.0", "norm")."""
    return tuple(_STEP.split(module)) if module else (NO_MODULE,)


def module_at(module: str, depth: int | None) -> str:
    """The module's path cut to `depth` steps."""
    return module if depth is None else ".".join(module_path(module)[:depth])
