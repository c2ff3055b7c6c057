"""A fresh process that loads a pipeline and generates images: cold start and peak memory of a service.

    python -m sdtrt.bench.fresh_process JOB

JOB is a `Job` as JSON. The parent reads lines on standard output that start with PREFIX, and takes their times.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sdtrt.bench.pipelines import CallSettings, CallShape, make_call, open_eager, open_engines
from sdtrt.bench.record import BenchError, ColdStart
from sdtrt.bundle.bundle import Bundle
from sdtrt.errors import SdtrtError
from sdtrt.system import nvml, process_memory
from sdtrt.system.json_records import Record

PREFIX = "sdtrt-bench "


class Job(Record):
    """Work of the process; `device` is None for engines, whose bundle says where they run."""

    bundle: str
    device: str | None
    settings: CallSettings
    shapes: tuple[CallShape, ...]


def run(job: Job, report: Callable[[str], None] = lambda label: None) -> tuple[ColdStart, str]:
    """Run a job in a fresh process; returns its times and memory, and the device of the pipeline.

    Raises the SdtrtError of the process, or BenchError with the last line of its standard error.
    """
    started = time.perf_counter()
    command = [sys.executable, "-m", __name__, job.model_dump_json()]
    reached_s: dict[str, float] = {}
    messages: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout or ():
                if line.startswith(PREFIX):
                    message = json.loads(line.removeprefix(PREFIX))
                    reached_s.setdefault(message["stage"], time.perf_counter() - started)
                    messages |= message
                    if "error" not in message:
                        report(message["stage"])
            errors = process.stderr.read().strip().splitlines() if process.stderr else []
        except BaseException:
            process.kill()
            raise
    if "error" in messages:
        raise SdtrtError(messages["error"].pop("message"), **messages["error"])
    if process.returncode or "done" not in reached_s:
        received = errors[-1] if errors else process.returncode
        raise BenchError("the fresh process ended early", slug="bench-process", received=received)
    start = ColdStart(
        loaded_s=reached_s["loaded"],
        first_image_s=reached_s["first image"],
        second_call_s=reached_s["second call"] - reached_s["first image"],
        resident_bytes=messages["resident_bytes"],
        gpu_bytes=messages["gpu_bytes"],
    )
    return start, str(messages["device"])


def main(text: str) -> None:
    """Run the job that `text` describes; called in the fresh process."""
    job = Job.model_validate_json(text)
    before = nvml.used_bytes()
    try:
        bundle = Bundle.open(Path(job.bundle))
        if job.device is None:
            pipe, device = open_engines(bundle)
        else:
            pipe, device = open_eager(bundle, job.settings.model, job.device), job.device
        _send("loaded")
        call = make_call(pipe, job.settings, job.shapes[0])
        call(0)
        _send("first image")
        call(1)
        _send("second call")
        for shape in job.shapes:  # only the peak memory of these calls is measured
            with ThreadPoolExecutor(shape.callers) as pool:
                list(pool.map(make_call(pipe, job.settings, shape), range(shape.callers)))
    except SdtrtError as exc:
        values = {n: getattr(exc, n) for n in ("message", "slug", "received", "expected", "hint")}
        error = {n: None if value is None else str(value) for n, value in values.items()}
        _send("error", error=error)
        return
    used = {uuid: now - before[uuid] for uuid, now in nvml.used_bytes().items() if uuid in before}
    gpu = used.get(nvml.gpu_uuid(device) or "")
    _send("done", device=device, resident_bytes=process_memory.peak_bytes(), gpu_bytes=gpu)


def _send(stage: str, **values: Any) -> None:
    sys.stdout.write(f"{PREFIX}{json.dumps({'stage': stage, **values})}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
