"""`sdtrt bench` measures what it says, and memory stays flat; a planted leak is found."""

import importlib.util
import json

import pytest

import sdtrt as package
from sdtrt import bench, cli
from sdtrt.bench import Bench, BenchError, Latency, Ratio, fresh_process, pipelines
from sdtrt.errors import SdtrtError
from sdtrt.pipelines import engine_loading

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def sdtrt(capsys, monkeypatch):
    """run(*arguments) -> (exit code, standard output, standard error)."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return caught.value.code or 0, captured.out, captured.err

    return run


# ---------------------------------------------------------------------------------------------- figures


def test_percentiles_are_calls_that_were_made():
    times = [float(i) for i in range(200, 0, -1)]
    found = Latency.of(times)
    assert (found.p50_s, found.p90_s, found.p99_s) == (100.0, 180.0, 198.0)
    assert found.calls_s == tuple(times)
    assert Latency.of([3.0]).p99_s == 3.0


def test_the_ratio_is_of_rounds_that_took_turns():
    """A machine that is slow for a while slows both: the ratio does not see it."""
    found = Ratio.of([2.0, 20.0, 4.0], [1.0, 10.0, 1.0])
    assert (found.median, found.mad, found.least, found.largest) == (2.0, 0.0, 2.0, 4.0)


def test_turns_change_who_is_first_and_drop_the_first_round():
    order = []
    calls = {kind: lambda seed, kind=kind: order.append((kind, seed)) for kind in ("engines", "eager")}
    rounds = bench._alternate(calls, 2, 3, lambda: None)
    assert [kind for kind, _ in order[::2]] == ["eager", "engines", "engines", "eager"] * 2
    assert {kind: [len(seconds) for _, seconds in found] for kind, found in rounds.items()} == {
        "engines": [2, 2, 2],
        "eager": [2, 2, 2],
    }
    assert all(whole >= max(seconds) for found in rounds.values() for whole, seconds in found)


# ---------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def measured(bundles, tmp_path_factory):
    """A file of two cases with two callers against eager, and a fresh process of each."""
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    found = bench.bench(bundles("sd1"), sizes=[(64, 64), (128, 64)], batches=(1,), steps=1, runs=2, callers=2, starts=1)
    found.save(path)
    return path


def test_everything_is_in_the_file(measured, bundles):
    found = Bench.load(measured)
    assert [case.name for case in found.cases] == ["64x64, batch 1, 2 callers", "128x64, batch 1, 2 callers"]
    for case in found.cases:
        for served in (case.engines, case.eager):
            assert len(served.latency.calls_s) == 4
            assert len(served.rounds_s) == 2
            assert served.images_per_s == pytest.approx(2 * 2 / sum(served.rounds_s))
        ratios = [e / m for e, m in zip(case.eager.rounds_s, case.engines.rounds_s, strict=True)]
        assert case.ratio.median == pytest.approx(sum(ratios) / 2)
        assert {n: c.count for n, c in case.image.engines.items()} == {"text_encoder": 2, "unet": 1, "vae_decoder": 1}
    assert found.eager_dtype == "float32"
    assert found.machine["packages"]["torch"]


def test_the_command_shows_it_and_keeps_to_its_limits(bundles, sdtrt, tmp_path, measured):
    bundle, path = bundles("sd1", "fake").path, tmp_path / "new" / "bench.json"
    arguments = ("bench", bundle, "--sizes", "64x64", "--batch", "1,2", "--steps", 1, "--runs", 1, "--starts", 0)
    code, out, _ = sdtrt(*arguments, "--no-eager", "--out", path, "--max-p90", 1000, "--baseline", measured)
    assert code == 0
    assert all(word in out for word in ("64x64, batch 2", "p90", "images/s", "unet", "scheduler, rest", str(path)))
    assert Bench.load(path).starts == {}
    code, _, err = sdtrt(*arguments, "--no-eager", "--out", path, "--max-p90", 1e-6)
    assert code == 1
    assert "bench-p90" in err
    code, _, err = sdtrt(*arguments, "--out", path, "--min-ratio", 1e6)
    assert code == 1
    assert "bench-ratio" in err
    assert Bench.load(path).cases[1].ratio.median < 1e6, "what was measured is kept"


@pytest.mark.parametrize(
    ("arguments", "slug"),
    [
        (("--sizes", "64"), "bench-sizes"),
        (("--sizes", "-64x64"), "bench-sizes"),
        (("--batch", "two"), "bench-batch"),
        (("--batch", "0"), "bench-count"),
        (("--min-ratio", "1", "--no-eager"), "bench-ratio"),
        (("--model", "/nonesuch", "--starts", "0"), "model-missing"),
        (("--baseline", "/nonesuch.json"), "bench-missing"),
        (("--sizes", "72x64", "--starts", "0", "--no-eager"), "outside-profile"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_mistakes_are_told(bundles, sdtrt, tmp_path, arguments, slug):
    code, _, err = sdtrt("bench", bundles("sd1", "fake").path, *arguments, "--out", tmp_path / "bench.json")
    assert code == 1
    assert f"({slug})" in err
    assert not (tmp_path / "bench.json").exists()


def test_a_fresh_process_tells_when_and_how_much(bundles):
    found = bench.bench(bundles("sd1", "fake"), sizes=[(64, 64)], steps=1, runs=1, eager=False)
    (start,) = found.starts["engines"]
    assert 0 < start.second_call_s < start.loaded_s < start.first_image_s
    assert start.resident_bytes > 100e6
    assert start.gpu_bytes is None, "unknown without a GPU, and not 0"


def test_an_error_in_the_fresh_process_is_raised_here(tmp_path):
    shape = pipelines.CallShape(height=64, width=64, batch=1, callers=1)
    settings = pipelines.CallSettings(steps=1)
    job = fresh_process.Job(bundle=str(tmp_path), device=None, settings=settings, shapes=(shape,))
    with pytest.raises(SdtrtError, match="bundle") as caught:
        fresh_process.run(job)
    assert caught.value.slug.startswith("bundle")
    assert caught.value.hint


def test_a_damaged_file_names_its_field(measured, tmp_path):
    data = json.loads(measured.read_text()) | {"steps": "many"}
    (tmp_path / "bench.json").write_text(json.dumps(data))
    with pytest.raises(BenchError, match="steps"):
        Bench.load(tmp_path / "bench.json")


# ---------------------------------------------------------------------------------------------- memory


@pytest.fixture(scope="module")
def soak(request):
    path = request.config.rootpath / "benchmarks" / "soak.py"
    spec = importlib.util.spec_from_file_location("soak", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pipe(bundles, soak, monkeypatch):
    monkeypatch.setattr(soak, "CALLS", [(batch, 64, 64, scale) for scale in (7.5, 1.0) for batch in (1, 2)])
    return package.load(bundles("sd1"), options={"threads": 1})


def growth(soak, pipe, images=30):
    found = soak.verdict(soak.soak(pipe, images=images, every=images // 5, callers=2, steps=1))
    del found["growth"]["resident_bytes"]  # the allocator's, too noisy for a short run
    return found["growth"]


def test_images_leave_nothing_behind(soak, pipe):
    assert {name: n for name, n in growth(soak, pipe).items() if n >= 1} == {}


def test_a_leak_is_found(soak, pipe):
    """What calls of the wild do: keep latents, open files, and pipelines."""
    kept, made = [], type(pipe.unet).forward

    def leaking(self, *args, **kwargs):
        out = made(self, *args, **kwargs)
        kept.extend((out[0], open("/dev/null")))  # noqa: SIM115, PTH123 (left open on purpose)
        return out

    pipe.unet.forward = leaking.__get__(pipe.unet)
    found = growth(soak, pipe, images=15)
    for thing in kept[1::2]:
        thing.close()
    assert found["tensors"] > 5
    assert found["files"] > 5


def test_a_verdict_needs_all_to_be_flat(soak):
    flat = [{"images": i, "resident_bytes": 10**9 + (-1) ** i * 10**6, "tensors": 5} for i in range(1, 101)]
    assert soak.verdict(flat)["flat"]
    for name, per_image in (("resident_bytes", 5 * 10**5), ("tensors", 1)):
        grown = [s | {name: s[name] + per_image * s["images"]} for s in flat]
        assert not soak.verdict(grown)["flat"]
        assert soak.verdict(grown)["growth"][name] == pytest.approx(79 * per_image, rel=0.1)


def test_pipelines_that_are_dropped_take_their_engines_along(soak, bundles):
    before = soak.alive()
    for _ in range(3):
        pipe = package.load(bundles("sd1", "fake"))
        pipe.set_progress_bar_config(disable=True)
        pipe("", num_inference_steps=1, height=64, width=64)
    assert engine_loading.engines_of(pipe)
    del pipe
    after = soak.alive()
    assert {name: after[name] - before[name] for name in ("engines", "pipelines")} == {"engines": 0, "pipelines": 0}
