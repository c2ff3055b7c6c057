"""Building in another process: starting it, passing on its progress, and turning its failure into an error."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from pydantic import ValidationError

from sdtrt.engines.backends.tensorrt.building.build_messages import BuildJob, BuildReport
from sdtrt.engines.backends.tensorrt.error_table import ErrorContext
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


def build_in_subprocess(job: BuildJob, context: ErrorContext, progress: Callable[[str, float], None]) -> list[str]:
    """Build the plan of a job and return notes, such as warnings; BuildError has the cause from TensorRT's log.

    An interrupt, or an exception in `progress`, cancels the build, waits up to GRACE_SECONDS, and ends the process.
    """
    errors: list[str] = []
    notes: list[str] = []
    last: BuildReport | None = None
    with tempfile.TemporaryFile() as stderr:
        process = _start_process(job, stderr)
        try:
            for line in process.stdout or ():
                with suppress(ValidationError):  # output of a library before the pipe was separated from it
                    last = BuildReport.model_validate_json(line)
                if last is None:
                    continue
                if last.progress is not None:
                    progress(*last.progress)
                elif last.severity == "WARNING":
                    notes = _append_unique(notes, last.text)
                elif last.severity is not None:
                    errors = _append_unique(errors, last.text)
            code = process.wait()
        finally:
            _stop_process(process)
        if last is not None and last.done:
            return notes
        # A kernel that was skipped for lack of memory is only a warning, and often the cause of the failure.
        errors += [note for note in notes if "out of memory" in note.lower() or "OutOfMemory" in note]
        raise _build_error(last, errors, code, _read_tail(stderr), context)


def _start_process(job: BuildJob, stderr: IO[bytes]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "sdtrt.engines.backends.tensorrt.building.build_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        encoding="utf-8",
        env=_process_environment(job.options.gpu),
        start_new_session=True,  # Ctrl-C reaches this process alone, which cancels the build
    )
    with suppress(BrokenPipeError):  # it ended at once, and its exit code is reported
        if process.stdin is not None:
            process.stdin.write(job.model_dump_json() + "\n")
            process.stdin.flush()
    return process


def _process_environment(gpu: int) -> dict[str, str]:
    """The environment of this process, with its import path, and with only the GPU to build on."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = [part.strip() for part in visible.split(",")] if visible else []
    return {
        "CUDA_MODULE_LOADING": "LAZY",
        **os.environ,
        "CUDA_VISIBLE_DEVICES": devices[gpu] if gpu < len(devices) else visible or str(gpu),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "PYTHONSAFEPATH": "1",
    }


def _stop_process(process: subprocess.Popen[str]) -> None:
    """Cancel the build if it still runs, then end the process."""
    if process.poll() is None:
        with suppress(OSError, subprocess.TimeoutExpired):
            process.communicate("cancel\n", timeout=GRACE_SECONDS)
    if process.poll() is None:
        process.kill()
        process.wait()
    for pipe in filter(None, (process.stdin, process.stdout)):
        with suppress(OSError):
            pipe.close()


def _build_error(
    last: BuildReport | None, errors: list[str], code: int, tail: list[str], context: ErrorContext
) -> SdtrtError:
    if last is not None and last.failed == "canceled":
        return BuildError(f"the build of {context.name} was canceled", slug="build-canceled")
    if last is not None and last.failed is not None:
        lines = [*([last.text] if last.text else []), *errors]
        fallback = BuildError(
            f"{context.name}: {_STAGES[last.failed]}",
            slug=f"build-{last.failed}",
            received=last.text or "no message",
            expected="an engine",
            hint="report it with this message, the model and the versions of `sdtrt doctor`",
        )
    else:
        lines = [*errors, *tail]
        fallback = BuildError(
            f"the process that builds {context.name} ended by {_describe_exit(code)}",
            slug="build-crashed",
            received="no message",
            expected="an engine; nothing else was harmed",
            hint="build again; if it comes again, free host memory, or use another release of TensorRT",
        )
    return context.from_log(lines, fallback)


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _append_unique(lines: list[str], text: str) -> list[str]:
    """The last _MAX_LINES lines, each once: TensorRT repeats a message up to a thousand times."""
    return lines if text in lines else [*lines, text][-_MAX_LINES:]


def _read_tail(stderr: IO[bytes]) -> list[str]:
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - _TAIL_BYTES))
    return [line for line in stderr.read().decode("utf-8", "replace").splitlines() if line.strip()]
