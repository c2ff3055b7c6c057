"""Forecasts of time: from builds on this machine that are alike, and unknown where there were none."""

import pytest

from sdtrt import config, engines
from sdtrt.builder import build, build_times, progress_shares
from sdtrt.builder.build_times import Entry
from sdtrt.builder.planning import plan_build
from sdtrt.cli.console import Countdown
from sdtrt.system import env


@pytest.fixture
def empty(monkeypatch, tmp_path):
    """A user's cache in which nothing lies."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def entry(seconds, **changes):
    fields = {"machine": "m", "backend": "fake", "component": "unet", "precision": "fp16", "profiles": "B=1"}
    return Entry(**{**fields, "weight_bytes": 1000, "seconds": seconds} | changes)


def plan(models, tmp_path, **settings):
    recipe = config.load(model=str(models["sd2"]), **{"backend": "fake"} | settings)
    return plan_build(recipe, tmp_path / "bundle")


def test_without_history_the_time_is_unknown(empty, models, tmp_path):
    found = plan(models, tmp_path)
    assert {step.expected_s for step in found.steps} == {None}
    assert found.expected_s is None
    assert str(Countdown(found.expected_s)) == "unknown"


def test_a_build_is_foreseen_from_the_one_before(empty, models, tmp_path):
    first = plan(models, tmp_path)
    made = build.run(first, tmp_path / "bundle")
    again = plan_build(first.config, tmp_path / "bundle", force=True)
    for step in again.steps:
        assert step.expected_s == pytest.approx(sum(made.manifest.components[step.spec.name].seconds.values()))
    assert again.expected_s == pytest.approx(sum(step.expected_s for step in again.steps))
    assert plan_build(first.config, tmp_path / "bundle").expected_s == 0, "nothing is to be done"


@pytest.mark.parametrize(
    "other", [{"machine": "n"}, {"backend": "b"}, {"component": "vae"}, {"precision": "fp32"}, {"weight_bytes": 700}]
)
def test_a_build_of_another_kind_foretells_nothing(empty, other):
    build_times.add(entry({"build": 5.0}, **other))
    assert build_times.load().expect(entry({})) is None


def test_the_newest_of_the_same_profiles_count_in_proportion_to_the_weights(empty):
    for seconds in (90.0, 1.0, 2.0, 4.0):
        build_times.add(entry({"build": seconds}))
    build_times.add(entry({"build": 70.0}, profiles="B=4"))
    assert build_times.load().expect(entry({}, weight_bytes=1100)) == {"build": pytest.approx(2.2)}
    assert build_times.load().expect(entry({}, profiles="B=8")) == {"build": 4.0}, "of the newest three"


def test_a_damaged_history_is_nothing_known_and_is_written_anew(empty):
    build_times.path().parent.mkdir(parents=True)
    build_times.path().write_text("{")
    assert build_times.load().entries == ()
    build_times.add(entry({"build": 5.0}))
    assert len(build_times.load().entries) == 1


def test_a_cache_that_cannot_be_written_spoils_no_build(monkeypatch, models, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert build.run(plan(models, tmp_path), tmp_path / "bundle").manifest.components


def test_the_history_stays_small(empty, monkeypatch):
    monkeypatch.setattr(build_times, "KEPT", 3)
    for seconds in range(5):
        build_times.add(entry({"build": float(seconds)}))
    assert [e.seconds["build"] for e in build_times.load().entries] == [2.0, 3.0, 4.0]


def test_shares_follow_the_seconds_that_are_known(empty, models, tmp_path):
    recipe = plan(models, tmp_path)
    machine = build_times.machine(engines.load("fake").device({}))
    for step in recipe.steps:
        seconds = {"load": 1.0, "export": 8.0, "build": 1.0} if step.spec.name == "unet" else {"export": 10.0}
        build_times.add(
            recipe.entry(step.spec.name, step.weight_bytes, seconds).model_copy(update={"machine": machine})
        )
    recipe = plan(models, tmp_path)
    assert progress_shares.components(recipe) == (dict.fromkeys((s.spec.name for s in recipe.steps), 10.0), 40.0)
    unet = progress_shares.stages(next(s for s in recipe.steps if s.spec.name == "unet"))
    assert (unet["load"], unet["export"], unet["build"]) == ((0.0, 0.1), (0.1, 0.9), (0.9, 1.0))


def test_the_countdown_runs_and_says_when_it_is_over(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    left = Countdown(400.0)
    assert str(left) == "6 min 40 s"
    left.reach(0.5)
    now[0] = 20.0
    assert str(left) == "3 min 00 s"
    now[0] = 300.0
    assert str(left) == "longer than before"


def test_the_cache_is_below_the_users_own(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert env.cache_folder() == tmp_path / ".cache" / "sdtrt"
