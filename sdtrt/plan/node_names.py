"""The diffusers module of a node: in node names as sdtrt writes them, and in the metadata of torch's exporter."""

import re

# The metadata key of torch's exporter; onnx-graphsurgeon drops it.
SCOPES = "pkg.torch.onnx.name_scopes"
_PRIVATE = re.compile(r"\.__dict__\['_modules'\]\['([^']+)'\]")


def node_path(scopes: str) -> str:
    """'["", "inner", "inner.mid_block", "conv2d_5"]' -> "/mid_block". Attention gets a segment of its own."""
    names = [_PRIVATE.sub(r".\1", s) for s in re.findall(r"(?:\"|')((?:[^\"']|\['[^']*'\])*)(?:\"|')(?:,|\])", scopes)]
    path, previous = "", ""
    for name in (n.removeprefix("inner").lstrip(".") for n in names[:-1] if not n.startswith("_")):
        if name:
            path += "/" + name.removeprefix(previous).lstrip(".")
            previous = name
    return path + ("/sdpa" if names and names[-1].startswith("scaled_dot_product_attention") else "")


def module_of(node: str) -> str:
    """Module that a node comes from: "/mid_block/resnets.1/conv1/Conv" gives "mid_block.resnets.1.conv1".

    Nodes outside all modules give "(top)".
    """
    return ".".join(part for part in node.split("/")[1:-1] if part != "sdpa") or "(top)"
