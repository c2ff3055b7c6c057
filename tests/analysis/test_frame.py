"""The layer table: its columns, its arithmetic, and that what is not known is NaN."""

from __future__ import annotations

import pytest

from sdtrt.analysis import COLUMNS, summarize, to_frame


def test_has_the_documented_columns_in_order(plans):
    frame = to_frame(plans)
    assert list(frame.columns) == list(COLUMNS)
    assert len(frame) == sum(len(plan.layers) for plan in plans)
    assert list(to_frame([]).columns) == list(COLUMNS)
    assert (to_frame([]).dtypes == frame.dtypes).all()


def test_rates_follow_from_the_median_time(unet):
    conv = to_frame([unet]).iloc[0]
    assert conv["time_ms"] == 2.0
    assert conv["pct_time"] == pytest.approx(50)
    assert conv["tflops_per_s"] == pytest.approx(2.0)
    assert conv["gb_per_s"] == pytest.approx(4.0)
    assert conv["intensity_flop_per_byte"] == pytest.approx(500)


def test_unknown_is_nan_and_zero_stays_zero(unet):
    frame = to_frame([unet]).set_index("name")
    reformat = frame.loc["Reformat 1"]
    numbers = frame.select_dtypes("float64").columns
    assert reformat[numbers].isna().all()
    assert reformat[["kernel", "precision", "module"]].isna().all()
    assert reformat["nodes"] == ()
    assert frame.loc["norm|1", "flops"] == 0
    assert frame.loc["norm|1", "tflops_per_s"] == 0
    assert frame.loc["norm|1", "nodes"] == ("a", "b")
    assert frame["intensity_flop_per_byte"].isna()["attn"], "nothing was moved: the quotient has no value"


def test_shares_are_of_the_layer_s_own_engine(plans, unet):
    larger = unet.model_copy(update={"layers": unet.layers * 3})
    frame = to_frame([*plans, larger])
    own = frame["pct_time"].iloc[len(plans[0].layers) :]
    assert own.iloc[: len(unet.layers)].sum() == pytest.approx(100)
    assert own.iloc[len(unet.layers) :].sum() == pytest.approx(100)
    assert frame["pct_time"].iloc[: len(plans[0].layers)].isna().all()


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_time_that_is_no_number_is_unknown(unet, bad):
    broken = unet.layers[0].model_copy(update={"times_ms": (bad,)})
    frame = to_frame([unet.model_copy(update={"layers": (broken, *unet.layers[1:])})])
    assert frame["time_ms"].isna()[0]
    assert frame["pct_time"].sum() == pytest.approx(100)


def test_an_empty_module_is_not_known(unet):
    rootless = unet.layers[0].model_copy(update={"module": ""})
    plan = unet.model_copy(update={"layers": (rootless,)})
    assert to_frame([plan])["module"].isna().all()
    assert summarize(plan).attributed_pct == 0


def test_summary_totals(unet):
    summary = summarize(unet)
    assert (summary.layers, summary.untimed_layers, summary.unattributed_layers) == (7, 1, 2)
    assert (summary.wall_ms, summary.layers_ms, summary.unattributed_ms) == (4.0, 4.0, 0.125)
    assert summary.attributed_pct == pytest.approx(100 - 3.125)
    assert summary.weight_mb == 1720
    assert summary.gflop_per_s == pytest.approx(1312.5)


def test_summary_of_an_untimed_plan_knows_no_times(untimed):
    summary = summarize(untimed)
    unknown = (summary.wall_ms, summary.layers_ms, summary.gflop_per_s, summary.attributed_pct, summary.weight_mb)
    assert set(unknown) == {None}
    assert summary.facts()["Wall time, median"] == "unknown"
    assert summary.facts()["Layers"] == "7, 7 not timed"
