from __future__ import annotations

from rule_engines import GFLOP, MB, PLAIN, Case, engine, layer

WORK = {"flops": 10 * GFLOP, "bytes_moved": MB}  # 0.1 ms

FIRES = [
    Case(
        engine(layer("slow", "conv", 0.5, **WORK), layer("good", "conv", 0.19, **WORK)),
        cost_ms=0.4,
        layers=("slow",),
        says=("slow takes 0.5 ms, ideal is 0.1 ms",),
    )
]
QUIET = [
    Case(engine(layer("good", "conv", 0.19, **WORK), layer("unknown", "conv", 9.0))),
    Case(engine(layer("cheap", "conv", 0.5, **WORK), layer("most", "conv", 90.0))),
    Case(engine(layer("found by another rule", "conv", 5.0, kernel=PLAIN, **WORK))),
    Case(engine(layer("a copy", "copy", 5.0, **WORK))),
]
