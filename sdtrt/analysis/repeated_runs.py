"""Several measured runs of one engine as one plan, so that the noise between runs can be seen."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from sdtrt.analysis.comparison.noise import MIN_RUNS
from sdtrt.errors import ConfigError
from sdtrt.plan.layers import Plan


def merge_runs(plans: Sequence[Plan]) -> Plan:
    """The first plan with the times of all.

    From three runs on, each counts with one figure, its median: the iterations of a run share clock and temperature, so
    they are not independent. Of two runs all iterations are taken. Raises ConfigError when a layer of the first
    is missing in another: then they are not runs of one engine.
    """
    if len(plans) == 1:
        return plans[0]
    tables = [_times(plan) for plan in plans]
    for plan, table in zip(plans[1:], tables[1:], strict=True):
        if table.keys() != tables[0].keys():
            odd = sorted(table.keys() ^ tables[0].keys())
            raise ConfigError(
                "these are not runs of one engine: their layers differ",
                slug="runs-differ",
                received=f"{len(odd)} layers are only in one of them, such as {odd[0][0][:80]!r}",
                expected=f"the {len(plans[0].layers)} layers of {plans[0].component}, got {len(plan.layers)}",
                hint="separate runs of one engine by commas, other engines by spaces",
            )
    layers = [
        layer.model_copy(update={"times_ms": _joined([table[key] for table in tables]), "timing": None})
        for layer, key in zip(plans[0].layers, tables[0], strict=True)
    ]
    wall = _joined([plan.wall_times_ms or () for plan in plans])
    return plans[0].model_copy(update={"layers": tuple(layers), "wall_times_ms": wall})


def _times(plan: Plan) -> dict[tuple[str, int], tuple[float, ...]]:
    """Times by name and, as names may repeat, the how-manieth of its name."""
    seen: dict[str, int] = defaultdict(int)
    table = {}
    for layer in plan.layers:
        known = () if layer.time_ms is None else (layer.time_ms,)
        table[layer.name, seen[layer.name]] = layer.times_ms or known
        seen[layer.name] += 1
    return table


def _joined(runs: Sequence[tuple[float, ...]]) -> tuple[float, ...] | None:
    if not all(runs):
        return None
    if len(runs) < MIN_RUNS:
        return tuple(time for times in runs for time in times)
    return tuple(median(times) for times in runs)
