"""The budget of an image: measured where one was timed, assumed and labeled so where none was."""

from __future__ import annotations

import pytest

from sdtrt.analysis.image_budget import ASSUMED_STEPS, REST, budget
from sdtrt.analysis.session import Analysis
from sdtrt.plan.image_timing import EngineCalls


def rows(found):
    return {row.stage: row for row in found.rows}


@pytest.fixture
def pipeline(unet, untimed):
    vae = unet.model_copy(update={"component": "vae_decoder", "wall_times_ms": None})
    encoder = unet.model_copy(update={"component": "vae_encoder"})
    return (untimed, unet, vae, encoder)


def test_a_recorded_image_is_reconciled_with_the_wall_clock(pipeline, image_run):
    found = budget(pipeline, image_run)
    assert (found.wall_ms, found.total_ms, found.steps, found.assumed) == (100, 100, 20, False)
    assert sum(row.total_ms for row in found.rows) == pytest.approx(found.wall_ms)
    assert sum(row.share_pct for row in found.rows) == pytest.approx(100)
    assert rows(found)[REST].total_ms == pytest.approx(6)
    assert (rows(found)["unet"].calls, rows(found)["unet"].per_call_ms) == (20, 4.5)


def test_a_recorded_call_stands_beside_the_profiled_one(pipeline, image_run):
    unet = rows(budget(pipeline, image_run))["unet"]
    assert (unet.profiled_ms, unet.layers_ms) == (4.0, 4.0)


def test_a_recorded_count_wins_over_an_assumption(pipeline, image_run):
    found = budget(pipeline, image_run)
    assert found.calls_of("text_encoder") == 2
    assert found.calls_of("vae_decoder") == 0, "it is built, but did not run"
    assert found.calls_of("nonesuch") == 0


def test_an_engine_that_ran_without_a_plan_is_not_lost(unet, image_run):
    encoder = rows(budget([unet], image_run))["text_encoder"]
    assert (encoder.total_ms, encoder.profiled_ms) == (4, None)
    assert "no plan" in encoder.note


def test_engines_that_ran_side_by_side_leave_no_negative_gap(unet, image_run):
    overlapping = image_run.model_copy(update={"engines": {"unet": EngineCalls(count=20, total_ms=110)}})
    gap = rows(budget([unet], overlapping))[REST]
    assert gap.total_ms is None
    assert gap.share_pct is None
    assert "more than the wall time" in gap.note


def test_a_profiled_millisecond_counts_for_each_call_as_slow_as_it_was(pipeline, image_run):
    found = budget(pipeline, image_run)
    assert found.per_image("unet") == pytest.approx(20 * 4.5 / 4.0)
    assert found.per_image("text_encoder") == 2, "its profile has no time to compare with"
    assert found.per_image("vae_decoder") == found.per_image("nonesuch") == 0
    assert budget(pipeline).per_image("unet") == ASSUMED_STEPS


def test_several_images_of_one_call_share_it(unet, image_run):
    assert budget([unet], image_run.model_copy(update={"images": 4})).per_image("unet") == pytest.approx(5 * 4.5 / 4.0)


def test_the_total_is_said_to_be_of_all_images_of_the_call(unet, image_run):
    assert [budget([unet], image_run.model_copy(update={"images": n})).total_of for n in (1, 8)] == [
        "image",
        "call for 8 images",
    ]


def test_without_a_recorded_image_calls_are_assumed(pipeline):
    found = budget(pipeline)
    assert found.assumed
    assert found.wall_ms is None
    assert found.steps == ASSUMED_STEPS
    assert [row.calls for row in found.rows] == [1, ASSUMED_STEPS, 1, 0]
    assert rows(found)["unet"].total_ms == pytest.approx(4.0 * ASSUMED_STEPS)
    assert rows(found)["vae_encoder"].total_ms == 0


def test_an_assumed_total_is_unknown_while_a_stage_is(pipeline, unet):
    assert budget(pipeline).total_ms is None, "the text encoder was not timed"
    assert budget([unet]).total_ms == pytest.approx(4.0 * ASSUMED_STEPS)


def test_layers_stand_in_for_a_wall_time_and_say_so(pipeline):
    decoder = rows(budget(pipeline))["vae_decoder"]
    assert decoder.per_call_ms == pytest.approx(4.0)
    assert "sum of its layers" in decoder.note


def test_an_engine_that_is_no_pipeline_runs_once(unet):
    found = budget([unet.model_copy(update={"component": "resnet"})])
    assert (found.whole, found.steps, found.calls_of("resnet"), found.total_ms) == ("run", 1, 1, 4.0)
    alone = budget([unet.model_copy(update={"component": "vae_encoder"})])
    assert alone.calls_of("vae_encoder") == 1


def test_what_a_faster_engine_would_give(pipeline, image_run):
    found = budget(pipeline, image_run)
    assert found.if_faster("unet", 10) == pytest.approx(91)
    assert found.if_faster("nonesuch", 10) is None
    assert budget(pipeline).if_faster("unet", 10) is None, "the whole is not known"


def test_no_plans_make_an_empty_budget():
    found = Analysis(()).budget
    assert (found.rows, found.total_ms) == ((), None)
