"""Which layers of two plans do the same work: by the ONNX nodes they implement, else by name, module or shape.

With nodes, layers that share one belong together, however many they are on either side. Layers without nodes that both
plans have (a change of layout, say) are paired by name or by module and kind. Plans that share no node at all are
aligned as TREx does it, by type and dimensions without the batch, but as two sequences: the order of both is kept.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from sdtrt.plan.layers import Layer, Plan, TensorInfo

By = Literal["nodes", "name", "module", "shape", "nothing"]
# Positions of the layers on both sides, and what they were matched by. One side is empty for layers without a match.
Match = tuple[tuple[int, ...], tuple[int, ...], By]
# Scores of a pair in the sequence alignment: the same name scores most, then all dimensions, then the first ones.
NAME, ALL_DIMS, FIRST_DIMS = 4, 2, 1
# Beyond this many pairs the table of the sequence alignment would take gigabytes.
MAX_PAIRS = 100_000_000


def align(a: Plan, b: Plan) -> list[Match]:
    """Every layer of `a` and of `b` in exactly one match, in the order of `a`; what only `b` has stands last."""
    shared = {n for layer in a.layers for n in layer.nodes} & {n for layer in b.layers for n in layer.nodes}
    matched = _by_nodes(a, b, shared) if shared else _by_sequence(a.layers, b.layers)
    steps: tuple[tuple[By, Callable[[Layer], Hashable]], ...] = (
        ("name", lambda x: (x.name, x.module)),
        ("module", lambda x: (x.module, x.kind) if x.module else None),
    )
    for by, key in steps if shared else ():
        matched += _by_key(a, b, _left(a, b, matched), key, by)
    left_a, left_b = _left(a, b, matched)
    matched += [((i,), (), "nothing") for i in left_a] + [((), (j,), "nothing") for j in left_b]
    return sorted(matched, key=lambda m: (not m[0], m[0] or m[1]))


def _left(a: Plan, b: Plan, matched: Sequence[Match]) -> tuple[list[int], list[int]]:
    used_a, used_b = ({i for match in matched for i in match[side]} for side in (0, 1))
    return ([i for i in range(len(a.layers)) if i not in used_a], [j for j in range(len(b.layers)) if j not in used_b])


def _by_nodes(a: Plan, b: Plan, shared: set[str]) -> list[Match]:
    """Connected components of layers and the nodes that they share.

    A node that does no work (a constant, a reshape) can belong to many layers and would connect the whole engine. It
    adds a layer to one group at the end, but never joins two groups.
    """
    work_a, work_b = _working(a, shared), _working(b, shared)
    sides = [*((0, i, x) for i, x in enumerate(a.layers)), *((1, j, x) for j, x in enumerate(b.layers))]
    union = _Union()
    for side, index, layer in sides:
        for node in (work_a, work_b)[side](layer):
            union.join((side, index), node)
    groups = _both_sided(union, sides)
    late: dict[str, int] = {}
    for number, (left, right) in enumerate(groups):
        for layer in (*(a.layers[i] for i in left), *(b.layers[j] for j in right)):
            late |= {node: late.get(node, number) for node in layer.nodes if node in shared}
    grouped = {(side, i) for group in groups for side in (0, 1) for i in group[side]}
    for side, index, layer in sides:
        home = next((late[node] for node in layer.nodes if node in late), None)
        if (side, index) not in grouped and home is not None:
            groups[home][side].append(index)
    return [(tuple(sorted(left)), tuple(sorted(right)), "nodes") for left, right in groups]


def _working(plan: Plan, shared: set[str]) -> Callable[[Layer], list[str]]:
    idle = {c.name for c in plan.nodes if c.kind == "shape" or (c.flops == 0 and c.bytes_moved == 0)}

    def nodes(layer: Layer) -> list[str]:
        named = [n for n in layer.nodes if n in shared]
        return [n for n in named if n not in idle] or (named if all(n in idle for n in layer.nodes) else [])

    return nodes


def _both_sided(union: _Union, sides: Iterable[tuple[int, int, Layer]]) -> list[tuple[list[int], list[int]]]:
    groups: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, index, _ in sides:
        groups[union.root((side, index))][side].append(index)
    return [group for group in groups.values() if group[0] and group[1]]


class _Union:
    """Disjoint sets."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}

    def root(self, item: Hashable) -> Hashable:
        """The item that stands for the set of `item`."""
        path = []
        while (parent := self._parent.get(item, item)) != item:
            path.append(item)
            item = parent
        self._parent |= dict.fromkeys(path, item)
        return item

    def join(self, one: Hashable, other: Hashable) -> None:
        """Make one set of the two."""
        self._parent[self.root(one)] = self.root(other)


def _by_key(
    a: Plan, b: Plan, left: tuple[list[int], list[int]], key: Callable[[Layer], Hashable], by: By
) -> list[Match]:
    """Layers with the same key: one to one in their order where both sides have as many, else all as a group."""
    keyed: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, plan in enumerate((a, b)):
        for index in left[side]:
            keyed[key(plan.layers[index])][side].append(index)
    keyed.pop(None, None)
    matched: list[Match] = []
    for before, after in keyed.values():
        if len(before) == len(after):
            matched += [((i,), (j,), by) for i, j in zip(before, after, strict=True)]
        elif before and after:
            matched.append((tuple(before), tuple(after), by))
    return matched


def _by_sequence(a: Sequence[Layer], b: Sequence[Layer]) -> list[Match]:
    """Two sequences aligned for the largest sum of `_scores`; what is left over is paired wherever it stands."""
    pairs = list(_best_pairs(a, b)) if len(a) * len(b) <= MAX_PAIRS else []
    used_a, used_b = {i for i, _ in pairs}, {j for _, j in pairs}
    keys: tuple[Callable[[Layer], Hashable], ...] = (lambda x: x.name, _all_dims, _first_dims)
    for key in keys:
        waiting: dict[Hashable, deque[int]] = defaultdict(deque)
        for j in (j for j in range(len(b)) if j not in used_b):
            waiting[key(b[j])].append(j)
        waiting.pop(None, None)
        for i in (i for i in range(len(a)) if i not in used_a):
            if queue := waiting.get(key(a[i])):
                pairs.append((i, queue.popleft()))
                used_a.add(i)
                used_b.add(pairs[-1][1])
    return [((i,), (j,), "name" if a[i].name == b[j].name else "shape") for i, j in pairs]


def _best_pairs(a: Sequence[Layer], b: Sequence[Layer]) -> Iterator[tuple[int, int]]:
    """The heaviest common subsequence. A row of the table follows from the one above in three numpy operations."""
    scores = _scores(a, b)
    best = np.zeros((len(a) + 1, len(b) + 1), dtype=np.int32)
    for i, row in enumerate(scores):
        taken = np.where(row > 0, best[i, :-1] + row, 0)
        best[i + 1, 1:] = np.maximum.accumulate(np.maximum(best[i, 1:], taken))
    i, j = len(a), len(b)
    while i and j:
        if best[i, j] == best[i - 1, j]:
            i -= 1
        elif best[i, j] == best[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            yield i, j


def _scores(a: Sequence[Layer], b: Sequence[Layer]) -> np.ndarray:
    scores = np.zeros((len(a), len(b)), dtype=np.int8)
    for weight, key in ((NAME, lambda x: x.name), (ALL_DIMS, _all_dims), (FIRST_DIMS, _first_dims)):
        codes: dict[Hashable, int] = {}
        left, right = ([codes.setdefault(key(x), len(codes)) for x in side] for side in (a, b))
        same = np.equal.outer(np.array(left, dtype=np.int64), np.array(right, dtype=np.int64))
        if None in codes:
            same[np.array(left, dtype=np.int64) == codes[None]] = False
        scores += (weight * same).astype(np.int8)
    return scores


def _all_dims(layer: Layer) -> Hashable | None:
    """The operator with the dimensions of all tensors; None when one is not known."""
    inputs, outputs = _dims(layer.inputs), _dims(layer.outputs)
    if None in inputs or None in outputs or not (inputs or outputs):
        return None
    if layer.kind == "pointwise":
        inputs = sorted(inputs, key=str)  # a + b is b + a
    return (layer.op, tuple(inputs), tuple(outputs))


def _first_dims(layer: Layer) -> Hashable | None:
    """The kind of the layer with the dimensions of its first input and output; None when neither is known."""
    first = (*_dims(layer.inputs[:1]), "to", *_dims(layer.outputs[:1]))
    known = any(isinstance(dims, tuple) for dims in first)
    return (layer.op if layer.kind == "other" else layer.kind, first) if known else None


def _dims(tensors: Iterable[TensorInfo]) -> list[tuple[int | None, ...] | None]:
    """Dimensions without the first, the batch; None for a tensor without a shape."""
    return [None if t.shape is None else t.shape[1:] for t in tensors]
