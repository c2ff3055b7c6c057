"""Which ONNX nodes a TensorRT layer says it implements: its `Metadata`, "[ONNX Layer: a][ONNX Layer: b]".

Between two stands U+001E where TensorRT fused them, U+001F where Myelin did, or nothing. A name may hold brackets of
its own. TensorRT cuts metadata at 4096 bytes: half a name at the end is no name.
"""

import re
from collections import Counter

from sdtrt.plan.node_names import module_of
from sdtrt.readers.documents import Omissions

_SEPARATOR = re.compile(r"[\x1e\x1f]")
_MARK = "[ONNX Layer: "


def nodes_of(metadata: object, omitted: Omissions, where: object) -> tuple[str, ...]:
    """Names of ONNX nodes, each once, in order."""
    if not isinstance(metadata, str) or _MARK not in metadata:
        return ()
    found: dict[str, None] = {}
    for part in _SEPARATOR.split(metadata):
        for piece in part.split(_MARK)[1:]:
            name = piece.rstrip()
            if name.endswith("]"):
                found[name[:-1]] = None
            else:
                omitted.add("the end of metadata that TensorRT cut off", where)
    return tuple(found)


def usual_module(nodes: tuple[str, ...]) -> str | None:
    """Module that most of the nodes come from; None where their names hold no path."""
    named = [module_of(n) for n in nodes if "/" in n]
    return Counter(named).most_common(1)[0][0] if named else None
