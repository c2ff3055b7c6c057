from __future__ import annotations

from rule_engines import MB, Case, engine, layer


def tiny(number, time_ms=0.004, kind="pointwise", **more):
    return [layer(f"t{i}", kind, time_ms, **more) for i in range(number)]


NAMES = tuple(f"t{i}" for i in range(25))

FIRES = [
    # 1 MB takes 1 of the 4 microseconds.
    Case(engine(*tiny(25, flops=0, bytes_moved=MB)), cost_ms=25 * 0.003, layers=NAMES, says=("25 layers",)),
    # The work is not known: a launch each.
    Case(engine(*tiny(25), layer("conv", "conv", 1.0)), cost_ms=25 * 0.002, layers=NAMES),
]
QUIET = [
    Case(engine(*tiny(19))),
    Case(engine(*tiny(25), layer("conv", "conv", 9.0))),
    Case(engine(*tiny(25, time_ms=0.005))),
    Case(engine(*tiny(25, kind="reformat"))),
    Case(engine(*tiny(25, module="time_proj"))),
    Case(engine(*tiny(25)).model_copy(update={"backend": "onnxruntime"})),
]
