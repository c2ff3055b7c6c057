"""Building in another process: start it, pass on its progress, and say what became of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from pydantic import ValidationError

from sdtrt.engines.backends.tensorrt import error_table
from sdtrt.engines.backends.tensorrt.building.build_messages import Job, Report
from sdtrt.errors import BuildError, SdtrtError

GRACE_SECONDS = 15.0
_TAIL_BYTES = 4000
_MAX_LINES = 200
_STAGES = {
    "parse": "TensorRT's parser refuses the graph",
    "profile": "TensorRT refuses an optimization profile",
    "option": "TensorRT refuses an option",
    "build": "TensorRT could not build the engine",
}


def build(job: Job, what: str, rebuild: str, progress: Callable[[str, float], None]) -> list[str]:
    """Build the plan of a job and return notes, such as warnings; BuildError says what the log tells.

    An interrupt, or an exception out of `progress`, asks the builder to stop, waits a little, and ends the process.
    """
    errors: list[str] = []
    notes: list[str] = []
    last: Report | None = None
    with tempfile.TemporaryFile() as stderr:
        process = _start(job, stderr)
        try:
            for line in process.stdout or ():
                last = _parse(line) or last
                if last is None:
                    continue
                if last.progress is not None:
                    progress(*last.progress)
                elif last.severity == "WARNING":
                    notes = _remember(notes, last.text)
                elif last.severity is not None:
                    errors = _remember(errors, last.text)
                elif last.note is not None:
                    notes = _remember(notes, last.note)
            code = process.wait()
        finally:
            _stop(process)
        if last is not None and last.done:
            return notes
        # That a kernel was skipped for want of memory is a warning, and often the cause of what fails in the end.
        errors += [note for note in notes if "out of memory" in note.lower() or "OutOfMemory" in note]
        raise _error(last, errors, code, _tail(stderr), what, rebuild)


def _parse(line: str) -> Report | None:
    """A report, or None for what a library printed before the channel was its own."""
    try:
        return Report.model_validate_json(line)
    except ValidationError:
        return None


def _start(job: Job, stderr: IO[bytes]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "sdtrt.engines.backends.tensorrt.building.build_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        encoding="utf-8",
        env=_environment(job.options.gpu),
        start_new_session=True,  # Ctrl-C is for this process, which stops the other in order
    )
    with suppress(BrokenPipeError):  # it died at once: its exit says why
        if process.stdin is not None:
            process.stdin.write(job.model_dump_json() + "\n")
            process.stdin.flush()
    return process


def _environment(gpu: int) -> dict[str, str]:
    """This process's, with its import path, and with the one GPU to build on."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    known = [part.strip() for part in visible.split(",")] if visible else []
    return {
        "CUDA_MODULE_LOADING": "LAZY",
        **os.environ,
        "CUDA_VISIBLE_DEVICES": known[gpu] if gpu < len(known) else visible or str(gpu),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "PYTHONSAFEPATH": "1",
    }


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask a process that still runs to stop, then end it."""
    if process.poll() is None:
        with suppress(OSError, subprocess.TimeoutExpired):
            process.communicate("cancel\n", timeout=GRACE_SECONDS)
    if process.poll() is None:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _error(last: Report | None, errors: list[str], code: int, tail: list[str], what: str, rebuild: str) -> SdtrtError:
    if last is not None and last.failed == "canceled":
        return BuildError(f"the build of {what} was canceled", slug="build-canceled")
    if last is not None and last.failed is not None:
        lines = [*([last.text] if last.text else []), *errors]
        otherwise = BuildError(
            f"{what}: {_STAGES[last.failed]}",
            slug=f"build-{last.failed}",
            received=last.text or "no message",
            expected="an engine",
            hint="report it with this message, the model and the versions of `sdtrt doctor`",
        )
    else:
        lines = [*errors, *tail]
        otherwise = BuildError(
            f"the process that builds {what} ended by {_ending(code)}",
            slug="build-crashed",
            received="no message",
            expected="an engine; nothing else was harmed",
            hint="build again; if it comes again, free host memory, or use another release of TensorRT",
        )
    return error_table.from_log(lines, what, rebuild=rebuild, otherwise=otherwise)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _remember(lines: list[str], text: str) -> list[str]:
    """The last lines, each once: TensorRT repeats itself a thousand times."""
    return lines if text in lines else [*lines, text][-_MAX_LINES:]


def _tail(stderr: IO[bytes]) -> list[str]:
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - _TAIL_BYTES))
    return [line for line in stderr.read().decode("utf-8", "replace").splitlines() if line.strip()]
