"""Keys and values of the cross-attention, computed in every step.

What it finds: the layers of `attn2.to_k` and `attn2.to_v`. They depend on the prompt alone, which is the same in every
step. Of a layer that does more, their share by FLOPs counts.

Why it costs: all steps but the first repeat the same products. Cost: their time in those steps, spread over all.

What to do: compute them once for each image in an engine of their own, and give them to the U-Net as inputs. They take
2 x tokens x channels for each cross-attention, a few megabytes in all.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdtrt.analysis.rule_support.repeated import repeated
from sdtrt.analysis.rule_support.view import Found, View

TITLE = "Cross-attention keys and values computed in every step"
MODULES = r"\battn2\.(processor\.)?(to_k|to_v)(_ip)?\b"


def find(view: View) -> Iterator[Found]:
    """All of them as one finding."""
    yield from repeated(view, MODULES, "the same prompt")
