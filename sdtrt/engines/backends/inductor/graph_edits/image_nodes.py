"""Images in a traced graph: their layout in memory, and the convolutions that make them."""

from typing import Any

from sdtrt.engines.backends.inductor.trace import Graph, Node


def in_memory(graph: Graph, source: Node, value: Any) -> Node:
    """Store a tensor in channels_last, once for all its readers.

    Inductor computes pointwise operations again for each reader, and stores their result again for each argument of a
    Triton kernel that it did not generate.
    """
    import torch

    for user in source.users:
        if user.target is torch.ops.prims.inductor_force_stride_order.default:
            return user
    _, channels, height, width = value.shape
    strides = [channels * height * width, 1, channels * width, channels]
    with graph.nodes.inserting_after(source):  # before all of its readers
        made = graph.nodes.call_function(torch.ops.prims.inductor_force_stride_order.default, (source, strides))
    made.meta = dict(source.meta)
    source.replace_all_uses_with(made, delete_user_cb=lambda user: user is not made)
    return made


def own_bias(source: Node) -> Node | None:
    """The bias of a convolution with one reader, which may add the bias instead."""
    import torch

    alone = source.target is torch.ops.aten.conv2d.default and len(source.users) == 1
    return source.args[2] if alone and len(source.args) > 2 else None
