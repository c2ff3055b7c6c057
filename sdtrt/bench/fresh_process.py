"""A fresh process, as a service that starts: loads a pipeline, makes images, tells when, and how much memory it took.

    python -m sdtrt.bench.fresh_process JOB

JOB is a `Job` as JSON. Lines on standard output that start with MARK are for the parent, which stamps them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from sdtrt.bench.pipelines import Settings, Shape, call_of, open_eager, open_engines
from sdtrt.bench.record import BenchError, Start
from sdtrt.bundle.bundle import Bundle
from sdtrt.errors import SdtrtError
from sdtrt.system import nvml, process_memory
from sdtrt.system.json_records import Record

MARK = "sdtrt-bench "


class Job(Record):
    """What the process does; `device` is None for engines, which have their own."""

    bundle: str
    device: str | None
    settings: Settings
    shapes: tuple[Shape, ...]


def start(job: Job, report: Callable[[str], None] = lambda label: None) -> tuple[Start, str]:
    """Run a job and wait for it; also returns the device that it ran on.

    Raises what the process raised, or BenchError with its last words.
    """
    started = time.perf_counter()
    command = [sys.executable, "-m", __name__, job.model_dump_json()]
    at: dict[str, float] = {}
    facts: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout or ():
                if line.startswith(MARK):
                    told = json.loads(line.removeprefix(MARK))
                    at.setdefault(told["at"], time.perf_counter() - started)
                    facts |= told
                    if "error" not in told:
                        report(told["at"])
            last = _last(process.stderr)
        except BaseException:
            process.kill()
            raise
    if "error" in facts:
        raise SdtrtError(facts["error"].pop("message"), **facts["error"])
    if process.returncode or "done" not in at:
        raise BenchError("the fresh process ended early", slug="bench-process", received=last or process.returncode)
    found = Start(
        loaded_s=at["loaded"],
        first_image_s=at["first image"],
        second_call_s=at["second call"] - at["first image"],
        resident_bytes=facts["resident_bytes"],
        gpu_bytes=facts["gpu_bytes"],
    )
    return found, str(facts["device"])


def _last(stream: IO[str] | None) -> str:
    lines = stream.read().strip().splitlines() if stream else []
    return lines[-1] if lines else ""


def main(text: str) -> None:
    """In the fresh process."""
    job = Job.model_validate_json(text)
    before = nvml.used_bytes()
    try:
        bundle = Bundle.open(Path(job.bundle))
        if job.device is None:
            pipe, device = open_engines(bundle)
        else:
            pipe, device = open_eager(bundle, job.settings.model, job.device), job.device
        _tell("loaded")
        call = call_of(pipe, job.settings, job.shapes[0])
        call(0)
        _tell("first image")
        call(1)
        _tell("second call")
        for shape in job.shapes:  # for the memory
            with ThreadPoolExecutor(shape.callers) as pool:
                list(pool.map(call_of(pipe, job.settings, shape), range(shape.callers)))
    except SdtrtError as exc:
        words = {n: getattr(exc, n) for n in ("message", "slug", "hint")}
        words |= {n: None if (v := getattr(exc, n)) is None else str(v) for n in ("received", "expected")}
        _tell("error", error=words)
        return
    used = {uuid: now - before[uuid] for uuid, now in nvml.used_bytes().items() if uuid in before}
    gpu = used.get(nvml.gpu_uuid(device) or "")
    _tell("done", device=device, resident_bytes=process_memory.peak_bytes(), gpu_bytes=gpu)


def _tell(at: str, **facts: Any) -> None:
    sys.stdout.write(f"{MARK}{json.dumps({'at': at, **facts})}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
