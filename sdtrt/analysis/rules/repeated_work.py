"""Work that every denoising step repeats although its result is known before the first."""

import re
from collections.abc import Iterator

from sdtrt.analysis.rule_support.view import Diagnostic, View, names_by_time, pluralize
from sdtrt.plan.layers import NodeCost
from sdtrt.plan.sums import sum_known

TITLES = {
    "constant_cross_attention": "Cross-attention keys and values computed in every step",
    "time_embedding": "Time embedding computed in every step",
}
PROMPT_MODULES = r"\battn2\.(processor\.)?(to_k|to_v)(_ip)?\b"
TIME_MODULES = r"(?:^|\.)(time_proj|time_embedding|add_time_proj|add_embedding|time_emb_proj)\b"


def constant_cross_attention(view: View) -> Iterator[Diagnostic]:
    """Keys and values of the cross-attention, computed in every step.

    What it finds: the layers of `attn2.to_k` and `attn2.to_v`. They depend on the prompt alone, which is the same in
    every step. Of a layer that does more, their share by FLOPs counts.

    Why it costs: all steps but the first repeat the same matmuls. Cost: their time in those steps, spread over all.

    What to do: compute them once for each image in an engine of their own, and give them to the U-Net as inputs. They
    take 2 x tokens x channels for each cross-attention, a few megabytes in all.
    """
    yield from _repeated(view, PROMPT_MODULES, "the same prompt")


def time_embedding(view: View) -> Iterator[Diagnostic]:
    """The time embedding, computed in every step.

    What it finds: the layers of the time embedding (and SDXL's added embedding) and of each ResNet block's projection
    of it, `time_emb_proj`. They depend on the time step alone, and a schedule's steps are known beforehand. Of a layer
    that does more, their share by FLOPs counts.

    Why it costs: dozens of matmuls with one or two rows, each a launch that reads its weights for almost no work. Cost:
    their time in all steps but the first, spread over all: one batch of all steps costs about one of them.

    What to do: compute the embeddings of all steps in one batch before the loop, in an engine of its own, and give each
    step its rows. Projections of all blocks can be one matmul with their weights side by side.
    """
    yield from _repeated(view, TIME_MODULES, "a time step known beforehand")


def _repeated(view: View, modules: str, input_name: str) -> Iterator[Diagnostic]:
    """One finding for the layers of these modules, at the cost of all runs but an image's first."""

    def wanted(node: NodeCost) -> bool:
        return re.search(modules, node.module) is not None

    found = [entry for entry in view.layers if entry.runs and entry.work_share(wanted) > 0]
    if not found or not view.repeated_share:
        return
    taken = sum_known(entry.work_ms(wanted) for entry in found)
    cost = None if taken is None else taken * view.repeated_share
    runs = "every run" if view.calls is None else f"{view.calls - 1} of {view.calls} runs"
    text = f"{pluralize(found, 'layer')} for {input_name}, repeated in {runs}{view.percent(cost)}"
    yield Diagnostic(text, names_by_time(found), cost)
