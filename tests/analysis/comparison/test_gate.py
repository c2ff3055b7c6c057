"""The gate: noise and slowdowns told apart, percentages read, verdicts as JUnit XML, runs merged."""

from __future__ import annotations

from statistics import median
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sdtrt.analysis import compare, gate, merge_runs
from sdtrt.analysis.comparison.gate import at_least, parse_percent
from sdtrt.analysis.comparison.junit import Case, check_cases, finding_cases, to_junit
from sdtrt.analysis.comparison.noise import Estimate, change_error_ms, estimate, layers_estimate, threshold
from sdtrt.analysis.findings import SEVERITIES, Finding
from sdtrt.errors import ConfigError
from sdtrt.plan.layers import Layer, Plan, Timing

times = st.lists(st.floats(0.001, 1000), min_size=1, max_size=30)


def layer(name, times_ms, module="block.0.a", **more):
    return Layer(name=name, kind="gemm", op="gemm", module=module, times_ms=times_ms, nodes=(name,), **more)


def plan(*layers, wall=None, component="unet"):
    return Plan(
        component=component,
        backend="fake",
        backend_version=None,
        device=None,
        precision=None,
        layers=layers,
        wall_times_ms=wall,
    )


def noisy(rng, center, spread=0.02, runs=10):
    return tuple(np.abs(rng.normal(center, spread * center, runs)).tolist())


def statuses(before, after, **options):
    checks = gate(compare(before, after), options.pop("pct", 3), **options)
    return {check.what: check.status for check in checks}


@given(times, st.floats(0.01, 100))
def test_an_estimate_scales_with_its_times(values, factor):
    one, scaled = estimate(values), estimate([value * factor for value in values])
    assert scaled.ms == pytest.approx(one.ms * factor)
    assert scaled.error_ms == (None if one.error_ms is None else pytest.approx(one.error_ms * factor, abs=1e-9))


@given(times)
def test_an_estimate_ignores_the_order_and_lies_within(values):
    one = estimate(values)
    assert one == estimate(sorted(values))
    assert min(values) <= one.ms <= max(values)
    assert (one.error_ms is None) == (len(values) < 3)
    assert one.error_ms is None or one.error_ms <= 1.5 * (max(values) - min(values))


def test_one_outlier_does_not_move_an_estimate():
    calm = estimate([1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01, 0.99, 1.0])
    spiked = estimate([1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01, 0.99, 50.0])
    assert spiked.ms == pytest.approx(calm.ms, rel=0.01)
    assert spiked.error_ms < 2 * calm.error_ms


def test_the_standard_error_is_that_of_the_median_of_normal_noise():
    rng = np.random.default_rng(3)
    medians = [median(rng.normal(10, 1) for _ in range(25)) for _ in range(4000)]
    actual = (sum((m - 10) ** 2 for m in medians) / len(medians)) ** 0.5
    claimed = median(estimate([rng.normal(10, 1) for _ in range(25)]).error_ms for _ in range(2000))
    assert claimed == pytest.approx(actual, rel=0.1)


def test_a_coarse_clock_still_has_noise():
    assert estimate([4, 4, 4, 4, 5]).error_ms > 0
    assert estimate([4, 4, 4, 4, 4]).error_ms == 0


def test_what_slows_a_whole_run_does_not_average_out_over_layers():
    rng = np.random.default_rng(1)
    speed = noisy(rng, 1.0, 0.05)
    together = layers_estimate([layer(f"l{i}", speed) for i in range(100)])
    assert together.ms == pytest.approx(100 * median(speed))
    assert together.error_ms == pytest.approx(100 * estimate(speed).error_ms)
    apart = layers_estimate([layer(f"l{i}", noisy(rng, 1.0, 0.05)) for i in range(100)])
    assert apart.error_ms < together.error_ms / 2


def test_layers_with_other_numbers_of_runs_count_as_independent():
    three, four = (1.0, 1.1, 0.9), (2.0, 2.2, 1.8, 2.0)
    sum_of = layers_estimate([layer("a", three), layer("b", four)])
    assert sum_of.error_ms == pytest.approx(change_error_ms(estimate(three), estimate(four)))
    assert layers_estimate([layer("a", three), layer("b", (1.0,))]).error_ms is None
    assert layers_estimate([layer("a", None)]) is None


def test_the_threshold_is_the_normal_one_for_many_runs_and_grows_with_fewer_and_with_more_tests():
    many, few = Estimate(1, 0.1, 10_000), Estimate(1, 0.1, 5)
    assert threshold(3, many, many) == pytest.approx(3, rel=0.01)
    assert threshold(3, few, few) > 5
    assert threshold(3, many, many, tests=1000) > threshold(3, many, many)


@pytest.mark.parametrize("runs", [5, 10, 30])
def test_noise_alone_seldom_fails_a_gate_of_a_hundred_modules(runs):
    rng, failed, trials = np.random.default_rng(runs), 0, 60
    for _ in range(trials):
        sides = [plan(*(layer(f"l{i}", noisy(rng, 1, 0.05, runs), f"m{i}") for i in range(100))) for _ in "ab"]
        failed += "slower" in statuses(*sides, pct=0, by="module").values()
    assert failed <= 6, "the model allows 2 %"


def test_a_slowdown_of_ten_percent_is_found_in_two_percent_of_noise():
    rng, found, trials = np.random.default_rng(7), 0, 100
    for _ in range(trials):
        a, b = (plan(layer("x", noisy(rng, 1)), wall=noisy(rng, center)) for center in (1, 1.1))
        found += statuses(a, b)["whole engine"] == "slower"
    assert found >= 95


def test_a_change_within_the_allowed_percentage_passes_however_sure_it_is():
    a, b = plan(layer("x", (1.0,) * 20), wall=(1.0,) * 20), plan(layer("x", (1.02,) * 20), wall=(1.02,) * 20)
    assert statuses(a, b, pct=3)["whole engine"] == "ok"
    assert statuses(a, b, pct=1)["whole engine"] == "slower"
    assert statuses(b, a, pct=0)["whole engine"] == "ok", "faster is never a failure"


def test_a_change_within_noise_passes_however_large_it_is():
    a, b = plan(layer("x", (1.0, 2.0, 3.0, 4.0, 5.0))), plan(layer("x", (1.3, 2.6, 3.9, 5.2, 6.5)))
    assert statuses(a, b)["whole engine"] == "ok"


def test_single_figures_are_decided_by_the_percentage_and_said_to_be_so():
    a, b = (plan(layer("x", None, timing=Timing(mean_ms=ms))) for ms in (1.0, 1.05))
    (check,) = gate(compare(a, b), 3)
    assert (check.status, check.noise_ms) == ("slower", None)
    assert "noise unknown" in check.reason
    assert statuses(a, b, pct=6)["whole engine"] == "ok"


def test_wall_times_are_compared_only_with_wall_times():
    a, b = plan(layer("x", (1.0,) * 5), wall=(9.0,) * 5), plan(layer("x", (1.0,) * 5))
    assert statuses(a, b)["whole engine"] == "ok"
    assert statuses(b, a)["whole engine"] == "ok"


def test_what_was_not_timed_is_not_compared_and_does_not_pass_for_good():
    a = plan(layer("x", None))
    (check,) = gate(compare(a, a), 3)
    assert check.status == "not compared"
    assert check.reason == "no times in the baseline and the candidate"


def test_modules_are_checked_at_a_depth_and_layers_one_by_one():
    before = [layer("x", (1.0,) * 9, "down.0.attn.0.q"), layer("y", (1.0,) * 9, "down.0.attn.0.k")]
    after = [before[0], layer("y", (1.5,) * 9, "down.0.attn.0.k")]
    found = statuses(plan(*before), plan(*after), by="module", depth=2)
    assert found == {"whole engine": "slower", "down.0.attn.0": "slower"}
    assert statuses(plan(*before), plan(*after), by="layer") == {"whole engine": "slower", "x": "ok", "y": "slower"}


def test_a_layer_that_is_new_shows_in_the_whole_engine():
    a, b = plan(layer("x", (1.0,) * 9)), plan(layer("x", (1.0,) * 9), layer("new", (1.0,) * 9, "m"))
    found = statuses(a, b, by="layer")
    assert found == {"whole engine": "slower", "x": "ok", "new": "not compared"}


@settings(max_examples=60, deadline=None)
@given(st.lists(times, min_size=1, max_size=6), st.sampled_from(["total", "module", "layer"]))
def test_an_engine_never_fails_against_itself(values, by):
    same = plan(*(layer(f"l{i}", tuple(v), f"m{i % 2}") for i, v in enumerate(values)))
    assert set(statuses(same, same, pct=0, by=by).values()) == {"ok"}


@settings(max_examples=60, deadline=None)
@given(times, st.floats(1, 50), st.floats(0, 40))
def test_a_larger_allowance_never_fails_more(values, growth, pct):
    assume(len(values) >= 3)
    a, b = plan(layer("x", tuple(values))), plan(layer("x", tuple(v * (1 + growth / 100) for v in values)))
    order = ["slower", "ok"]
    verdicts = [order.index(statuses(a, b, pct=p)["whole engine"]) for p in (pct, pct + 5, 1000)]
    assert verdicts == sorted(verdicts)


@pytest.mark.parametrize(
    ("text", "value"), [("3%", 3), ("3", 3), (" 2.5 % ", 2.5), ("0.03%", 0.03), (".5%", 0.5), ("0", 0), ("1000%", 1000)]
)
def test_percentages_that_can_be_read(text, value):
    assert parse_percent(text) == value


@pytest.mark.parametrize("text", ["0.03", "", "%", "-3%", "nan", "inf", "three", "3%%", "3 4", "1e3%", "1001", "٣%"])
def test_percentages_that_make_no_sense_are_typed_errors(text):
    with pytest.raises(ConfigError) as caught:
        parse_percent(text)
    assert caught.value.slug == "percentage"


def test_three_runs_count_with_one_figure_each():
    runs = [plan(layer("x", (t, t + 0.2, t + 0.1)), wall=(t, t, t)) for t in (1.0, 2.0, 3.0)]
    merged = merge_runs(runs)
    assert merged.layers[0].times_ms == pytest.approx((1.1, 2.1, 3.1))
    assert merged.wall_times_ms == (1.0, 2.0, 3.0)


def test_averages_of_several_runs_give_a_noise():
    runs = [plan(layer("x", None, timing=Timing(mean_ms=ms))) for ms in (1.0, 1.1, 0.9)]
    assert merge_runs(runs).layers[0].times_ms == (1.0, 1.1, 0.9)
    assert merge_runs(runs).wall_times_ms is None
    assert layers_estimate(merge_runs(runs).layers).error_ms > 0


def test_two_runs_are_taken_iteration_by_iteration_and_one_as_it_is():
    one, two = plan(layer("x", (1.0, 2.0))), plan(layer("x", (3.0,)))
    assert merge_runs([one, two]).layers[0].times_ms == (1.0, 2.0, 3.0)
    assert merge_runs([one]) is one


def test_equal_names_are_merged_in_their_order():
    run = plan(layer("x", (1.0,)), layer("x", (5.0,)))
    assert [x.times_ms for x in merge_runs([run, run]).layers] == [(1.0, 1.0), (5.0, 5.0)]


def test_other_engines_cannot_be_merged():
    with pytest.raises(ConfigError, match="layers differ") as caught:
        merge_runs([plan(layer("x", (1.0,))), plan(layer("y", (1.0,)))])
    assert caught.value.slug == "runs-differ"


def finding(severity, rule="rule_a", component="unet", **more):
    known = {"title": "T", "message": "M", "layers": ("l",), "cost_ms": 1.0, "cost_per_image_ms": 50.0, "advice": "A"}
    return Finding(rule=rule, severity=severity, component=component, **known | more)


def test_findings_of_a_severity_and_above():
    found = [finding(severity) for severity in SEVERITIES]
    assert [[f.severity for f in at_least(found, s)] for s in SEVERITIES] == [
        ["high"],
        ["high", "medium"],
        ["high", "medium", "low"],
    ]


def test_a_rule_is_a_test_that_fails_where_it_found_something():
    found = [finding("high"), finding("low", component="vae"), finding("medium", rule="rule_b")]
    cases = {(c.name, c.group): c.status for c in finding_cases(found, ["rule_a", "rule_c"], "high")}
    assert cases == {
        ("rule_a", "unet"): "failed",
        ("rule_a", "vae"): "passed",
        ("rule_b", "unet"): "passed",
        ("rule_c", "all engines"): "passed",
    }


def parsed(text):
    return ET.fromstring(text)  # noqa: S314 (what was written just now)


def test_junit_counts_and_nests_as_build_servers_expect():
    a = plan(layer("x", (1.0,) * 9), layer("old", (1.0,) * 9, "o"))
    b = plan(layer("x", (2.0,) * 9), layer("new", (1.0,) * 9, "n"))
    root = parsed(to_junit("compare", check_cases(gate(compare(a, b, names=("main", "branch")), 3, "layer"))))
    suite = root[0]
    counts = {key: int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": 4, "failures": 2, "errors": 0, "skipped": 2}
    assert root.attrib["failures"] == "2"
    failed = suite.find("testcase[@name='x']")
    assert failed.attrib["classname"] == "branch.unet"
    assert "+100.0 %" in failed.find("failure").attrib["message"]
    assert suite.find("testcase[@name='new']/skipped") is not None


@given(st.text(max_size=40), st.text(max_size=40))
def test_junit_is_xml_whatever_the_names(name, message):
    for status in ("passed", "failed", "skipped"):
        case = parsed(to_junit(name, [Case(name, name, status, message, message)]))[0][0]
        assert len(case) <= 1
        assert case.attrib["classname"] == case.attrib["name"]


def test_junit_keeps_hostile_names_as_text(hostile):
    text = to_junit("s", [Case("g", f"{hostile}\x1b[31m\x00", "failed", '"&<', "]]>")])
    assert "<img" not in text
    (case,) = parsed(text)[0]
    assert case.attrib["name"] == f"{hostile}\ufffd[31m\ufffd"
    assert case[0].attrib["message"] == '"&<'
