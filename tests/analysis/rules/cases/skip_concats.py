from __future__ import annotations

from rule_engines import MB, Case, engine, layer

SKIP = {"module": "up_blocks.1", "bytes_moved": 20 * MB}

FIRES = [
    Case(
        engine(
            layer("a", "copy", 0.25, op="Concat", **SKIP),
            layer("/up_blocks.2/resnets.0/x_output_0 copy", "reformat", 0.5),
        ),
        cost_ms=0.75,
        layers=("/up_blocks.2/resnets.0/x_output_0 copy", "a"),
        says=("2 copies to join", "20 MB each run"),
    )
]
QUIET = [
    Case(engine(layer("a", "copy", 0.25, op="Slice", **SKIP))),
    Case(engine(layer("a", "copy", 0.25, op="Concat", module="mid_block"))),
    Case(engine(layer("fused", "norm", 0.25, op="Concat", **SKIP))),
]
