"""Module paths of layers as steps, and their substitutes in an engine without known modules."""

from collections.abc import Hashable

import pandas as pd

from sdtrt.analysis.module_paths import module_path

DEPTH = 2


def paths_of(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """Where each layer belongs: its engine and the steps of its module, else of its kind and name."""
    named = _named(frame)
    modules = frame["module"].where(frame["module"].notna(), None)
    columns = zip(frame["component"], modules, frame["kind"], frame["name"], strict=True)
    return [
        (component, *(module_path(module) if component in named else (kind, name)))
        for component, module, kind, name in columns
    ]


def blocks_of(frame: pd.DataFrame) -> list[str]:
    """The first steps of each module, such as "down_blocks.1.attentions.0", else the layer's name."""
    named = _named(frame)
    return [".".join(path[1 : 1 + DEPTH]) if path[0] in named else path[-1] for path in paths_of(frame)]


def _named(frame: pd.DataFrame) -> set[Hashable]:
    """Engines of which a module is known."""
    return set(frame.loc[frame["module"].notna(), "component"])
