"""Work that every step repeats although its result is known before the first."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sdtrt.analysis.rule_support.view import Found, View, counted, names, total
from sdtrt.plan.layers import NodeCost


def repeated(view: View, modules: str, what: str) -> Iterator[Found]:
    """The layers of these modules, at the cost of all runs but an image's first."""

    def wanted(node: NodeCost) -> bool:
        return re.search(modules, node.module) is not None

    found = [part for part in view.parts if part.runs and part.share(wanted) > 0]
    if not found or not view.repeated:
        return
    taken = total(part.ms(wanted) for part in found)
    cost = None if taken is None else taken * view.repeated
    runs = "every run" if view.calls is None else f"{view.calls - 1} of {view.calls} runs"
    yield Found(f"{counted(len(found), 'layer')} for {what}, repeated in {runs}{view.pct(cost)}", names(found), cost)
