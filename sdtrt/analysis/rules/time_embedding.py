"""The time embedding, computed in every step.

What it finds: the layers of the time embedding (and SDXL's added embedding) and of each ResNet block's projection of
it, `time_emb_proj`. They depend on the time step alone, and a schedule's steps are known beforehand. Of a layer that
does more, their share by FLOPs counts.

Why it costs: dozens of products with one or two rows, each a launch that reads its weights for almost no work. Cost:
their time in all steps but the first, spread over all: one batch of all steps costs about one of them.

What to do: compute the embeddings of all steps in one batch before the loop, in an engine of its own, and give each
step its rows. Projections of all blocks can be one product with their weights side by side.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdtrt.analysis.rule_support.repeated import repeated
from sdtrt.analysis.rule_support.view import Found, View

TITLE = "Time embedding computed in every step"
MODULES = r"(?:^|\.)(time_proj|time_embedding|add_time_proj|add_embedding|time_emb_proj)\b"


def find(view: View) -> Iterator[Found]:
    """All of them as one finding."""
    yield from repeated(view, MODULES, "a time step known beforehand")
