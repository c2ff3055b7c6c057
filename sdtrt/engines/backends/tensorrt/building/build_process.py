"""The process that builds one engine, started by module name; `build_messages` has its input and output.

A crash or a leak of the builder ends with this process. When the calling process ends, so does the input pipe, and the
build stops.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, TextIO

from sdtrt.engines.backends.tensorrt.building.build_messages import BuildJob, BuildReport
from sdtrt.engines.backends.tensorrt.building.build_progress import Phases
from sdtrt.engines.backends.tensorrt.building.network import BuildFailed, build_plan
from sdtrt.engines.backends.tensorrt.logger import listen

if TYPE_CHECKING:
    import tensorrt as trt

_SECONDS_BETWEEN = 0.1


class ReportChannel:
    """Output to the calling process; `stop` is set when that process cancels the build or ends."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self.stop = threading.Event()

    def send(self, report: BuildReport) -> None:
        """Write one line; a closed pipe stops the build."""
        try:
            with self._lock:
                self._out.write(report.model_dump_json(exclude_defaults=True) + "\n")
                self._out.flush()
        except OSError:
            self.stop.set()

    def wait_for_stop(self) -> None:
        """Wait for input, which is always a cancellation, or for the end of the pipe."""
        os.read(0, 64)
        self.stop.set()


def main() -> int:
    """Build the job on standard input."""
    # Output of libraries must not mix with reports: standard output becomes standard error.
    channel = ReportChannel(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    with os.fdopen(0, "rb", buffering=0, closefd=False) as pipe:  # unbuffered: no read beyond the job
        job = BuildJob.model_validate_json(pipe.readline())
    threading.Thread(target=channel.wait_for_stop, daemon=True).start()

    def log(severity: str, text: str) -> None:
        if severity in ("INTERNAL_ERROR", "ERROR", "WARNING"):
            channel.send(BuildReport(severity=severity, text=text))

    with listen(log):
        try:
            notes = build_plan(job, _progress_monitor(channel))
        except BuildFailed as exc:
            channel.send(BuildReport(failed="canceled" if channel.stop.is_set() else exc.stage, text=exc.text))
            return 1
    for note in notes:
        channel.send(BuildReport(severity="WARNING", text=note))
    channel.send(BuildReport(done=True))
    return 0


def _progress_monitor(channel: ReportChannel) -> trt.IProgressMonitor:
    import tensorrt as trt

    class Monitor(trt.IProgressMonitor):
        """TensorRT calls it from several threads; a False from `step_complete` stops the build."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phases = Phases()
            self._sent = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._phases.start(phase_name, parent_phase, num_steps)
            self._report()

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._phases.step(phase_name, step)
            self._report()
            return not channel.stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            self._phases.finish(phase_name)
            self._report()

        def _report(self) -> None:
            now = time.monotonic()
            if now - self._sent >= _SECONDS_BETWEEN:
                self._sent = now
                channel.send(BuildReport(progress=self._phases.state()))

    monitor: Any = Monitor()
    return monitor


if __name__ == "__main__":
    sys.exit(main())
