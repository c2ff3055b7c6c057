"""run(): the checks that need the machine of a user, on the embedded model, written to a file for an issue.

TensorRT cannot be had where sdtrt is developed: there its parts are proved against NVIDIA's declarations and a double.
What only a GPU can tell, this asks. It needs no network and leaves nothing but its file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sdtrt import engines
from sdtrt.selftest._records import Check, SelfTest
from sdtrt.selftest._runner import Runner
from sdtrt.system import env
from sdtrt.system.files import write_text

__all__ = ["BACKENDS", "Check", "SelfTest", "run"]

BACKENDS = ("tensorrt", "onnxruntime")
_MESSAGES = 50


def run(out: Path, report: Callable[[str, float], None] = lambda label, share: None) -> SelfTest:
    """Make all checks that this machine allows; writes `out`, and a Markdown file of the same name beside it.

    A check that fails is in the result and stops nothing; no error is raised for one.
    """
    from sdtrt.engines.backends.tensorrt import self_checks
    from sdtrt.selftest import _bench, _common, _tensorrt

    cases = {"tensorrt": (*_common.CASES, *_tensorrt.CASES), "onnxruntime": _common.CASES}
    missing = {n: why for n in BACKENDS if (why := engines.load(n).unavailable()) is not None}
    total, seen = sum(map(len, cases.values())), [0]
    logged: list[tuple[str, str]] = []
    noted: list[str] = []
    result = SelfTest(
        sdtrt=env.version("sdtrt") or "unknown",
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        environment=env.describe(),
        backends={n: _describe(n) for n in BACKENDS if n not in missing},
        missing={n: f"{why.reason}; to mend: {why.fix}" for n, why in missing.items()},
    )

    def saved(checks: tuple[Check, ...]) -> None:
        nonlocal result
        unknown = (t for t in (*noted, *(text for _, text in logged)) if self_checks.known(t) is None)
        messages = tuple(dict.fromkeys(" ".join(t.split()) for t in unknown))[:_MESSAGES]
        result = result.model_copy(update={"checks": checks, "messages": messages})
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, result.model_dump_json(indent=1) + "\n")
        write_text(out.with_suffix(".md"), result.to_markdown())

    def say(label: str) -> None:
        report(label, seen[0] / total)
        seen[0] += 1

    runner = Runner(saved)
    for backend in BACKENDS:
        if backend in missing:
            runner.skip(cases[backend], backend, missing[backend].reason)
            seen[0] += len(cases[backend])
            continue
        watching: AbstractContextManager[Any] = self_checks.watched() if backend == "tensorrt" else nullcontext(logged)
        with tempfile.TemporaryDirectory(prefix="sdtrt-self-test-") as folder, watching as logged:
            bench = _bench.bench(backend, Path(folder))
            try:
                runner.run(cases[backend], backend, bench, say)
            finally:
                bench.close()
            if backend == "tensorrt":  # its builder runs in another process, and its words are in the engines' records
                noted += [note for folder in bench.built for note in self_checks.notes(folder)]
                saved(tuple(runner.done))
    report("done", 1.0)
    return result


def _describe(name: str) -> str:
    backend = engines.load(name)
    return f"{backend.version()} on {backend.device(backend.check_options({}))}"
