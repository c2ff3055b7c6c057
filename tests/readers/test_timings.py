"""Times belong to layers by name, whatever their order; none is lost and none is made up."""

from __future__ import annotations

import math

import pytest

from sdtrt.plan.layers import Layer
from sdtrt.readers.documents import Omissions
from sdtrt.readers.formats.tensorrt.timings import records, run_times, timed


def layers(*names):
    return [Layer(name=n, kind="other", op="x") for n in names]


def profile(*names, **more):
    return [
        {"count": 10},
        *({"name": n, "timeMs": 10.0 * (i + 1), "averageMs": 1.0 * (i + 1), **more} for i, n in enumerate(names)),
    ]


def test_records_are_matched_by_name_not_by_place():
    got, notes = timed(layers("a", "b"), records(profile("b", "a"), Omissions()))
    assert [x.timing.mean_ms for x in got] == [2.0, 1.0]
    assert notes == ()


def test_equal_names_are_matched_in_order():
    got, _ = timed(layers("a", "b", "a"), records(profile("a", "a", "b"), Omissions()))
    assert [x.timing.mean_ms for x in got] == [1.0, 3.0, 2.0]


def test_a_record_without_a_layer_becomes_one_and_its_share_is_noted():
    got, notes = timed(layers("a"), records(profile("a", "hidden"), Omissions()))
    assert [(x.name, x.op, x.time_ms) for x in got] == [("a", "x", 1.0), ("hidden", "unmatched", 2.0)]
    assert "66.7 % of the time" in notes[0]


def test_a_layer_without_a_record_has_no_time_and_is_noted():
    got, notes = timed(layers("a", "b"), records(profile("a"), Omissions()))
    assert got[1].time_ms is None
    assert notes == ("1 layers were not measured, such as b",)


def test_a_tag_of_a_profile_on_one_side_does_not_part_them():
    got, notes = timed(layers("a [profile 1]"), records(profile("a"), Omissions()))
    assert (got[0].time_ms, notes) == (1.0, ())


def test_the_median_counts_where_it_was_written_and_the_mean_elsewhere():
    found = records(profile("a", medianMs=0.25, percentage=50), Omissions())
    got, _ = timed(layers("a"), found)
    assert (found.runs, got[0].time_ms, got[0].timing.total_ms, got[0].timing.percentage) == (10, 0.25, 10.0, 50.0)


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "1", [1], True])
def test_a_time_that_is_none_is_noted(value):
    left = Omissions()
    found = records([{"name": "a", "averageMs": value}], left)
    assert found.timings[0][1].mean_ms is None
    assert left.notes() == ("left out: a time that is negative, no number or above all sense (1 times, first in a)",)


def test_entries_that_are_no_records_are_noted():
    left = Omissions()
    assert records([3, {"x": 1}, {"count": -1}], left).timings == ()
    assert len(left.notes()) == 2


def test_runs_have_their_gpu_times():
    assert run_times([{"computeMs": 1.5}, {"computeMs": 2}, {"latencyMs": 3}], Omissions()) == (1.5, 2.0)
    assert run_times({"no": "list"}, Omissions()) is None
