"""run(): checks on the user's machine with the embedded model, written to a file for an issue.

TensorRT is not available where sdtrt is developed: tests there use NVIDIA's declarations and a double. These checks
cover the rest, which needs a GPU. They need no network and leave only the file.
"""

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime, timezone
from pathlib import Path

from sdtrt import engines
from sdtrt.selftest._records import Check, SelfTest
from sdtrt.selftest._runner import Runner
from sdtrt.system import env
from sdtrt.system.files import write_text

__all__ = ["BACKENDS", "Check", "SelfTest", "run"]

BACKENDS = ("tensorrt", "onnxruntime")
_MAX_MESSAGES = 50


def run(out: Path, report: Callable[[str, float], None] = lambda label, share: None) -> SelfTest:
    """Run all checks that this machine allows; writes `out`, and a Markdown file of the same name beside it.

    A failed check is part of the result: it raises nothing and stops no other check.
    """
    from sdtrt.engines.backends.tensorrt import self_checks
    from sdtrt.engines.backends.tensorrt.logger import collect_errors
    from sdtrt.selftest import _bench, _common, _tensorrt

    cases = {"tensorrt": (*_common.CASES, *_tensorrt.CASES), "onnxruntime": _common.CASES}
    missing = {n: why for n in BACKENDS if (why := engines.load(n).unavailable()) is not None}
    total, started = sum(map(len, cases.values())), 0
    logged: list[str] = []  # by TensorRT in this process
    notes: list[str] = []  # of its builder, which runs in another process, from the engines' records
    result = SelfTest(
        sdtrt=env.version("sdtrt") or "unknown",
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        environment=env.describe(),
        backends={n: _describe(n) for n in BACKENDS if n not in missing},
        missing={n: f"{why.reason}; to fix: {why.fix}" for n, why in missing.items()},
    )

    def save(checks: tuple[Check, ...]) -> None:
        nonlocal result
        unknown = (t for t in (*notes, *logged) if self_checks.error_slug(t) is None)
        texts = tuple(dict.fromkeys(" ".join(t.split()) for t in unknown))[:_MAX_MESSAGES]
        result = result.model_copy(update={"checks": checks, "messages": texts})
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, result.model_dump_json(indent=1) + "\n")
        write_text(out.with_suffix(".md"), result.to_markdown())

    def report_start(label: str) -> None:
        nonlocal started
        report(label, started / total)
        started += 1

    runner = Runner(save, report_start)
    for backend in BACKENDS:
        if backend in missing:
            runner.skip(cases[backend], backend, missing[backend].reason)
            started += len(cases[backend])
            continue
        messages = collect_errors("WARNING") if backend == "tensorrt" else nullcontext(logged)
        with tempfile.TemporaryDirectory(prefix="sdtrt-self-test-") as folder, messages as logged:
            bench = _bench.bench(backend, Path(folder))
            try:
                runner.run(cases[backend], backend, bench)
            finally:
                bench.close()
            if backend == "tensorrt":
                notes += [note for folder in bench.built for note in self_checks.build_notes(folder)]
                save(tuple(runner.done))
    report("done", 1.0)
    return result


def _describe(name: str) -> str:
    backend = engines.load(name)
    return f"{backend.version()} on {backend.device(backend.check_options({}))}"
