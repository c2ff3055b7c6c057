"""The process that builds one engine, started by name; `build_messages` has what it reads and writes.

A builder that crashes or leaks takes this process with it and nothing else. When the caller is gone its pipe ends, and
the build stops.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, TextIO

from sdtrt.engines.backends.tensorrt.building.build_messages import Job, Report
from sdtrt.engines.backends.tensorrt.building.build_progress import Phases
from sdtrt.engines.backends.tensorrt.building.network import Failed, build
from sdtrt.engines.backends.tensorrt.logger import listening

if TYPE_CHECKING:
    import tensorrt as trt

_SECONDS_BETWEEN = 0.1


class Channel:
    """Reports to the caller, and whether it still wants the engine."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self.stop = threading.Event()

    def send(self, report: Report) -> None:
        """Write one line; a caller that is gone stops the build."""
        try:
            with self._lock:
                self._out.write(report.model_dump_json(exclude_defaults=True) + "\n")
                self._out.flush()
        except OSError:
            self.stop.set()

    def watch(self) -> None:
        """Wait for an order, which can only be to stop, or for the end of the pipe."""
        os.read(0, 64)
        self.stop.set()


def main() -> int:
    """Build the job on standard input."""
    # What libraries print must not stand between reports: standard output becomes standard error.
    channel = Channel(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    with os.fdopen(0, "rb", buffering=0, closefd=False) as orders:  # unbuffered: what follows the job is not read ahead
        job = Job.model_validate_json(orders.readline())
    threading.Thread(target=channel.watch, daemon=True).start()

    def log(severity: str, text: str) -> None:
        if severity in ("INTERNAL_ERROR", "ERROR", "WARNING"):
            channel.send(Report(severity=severity, text=text))

    with listening(log):
        try:
            notes = build(job, _monitor(channel))
        except Failed as exc:
            channel.send(Report(failed="canceled" if channel.stop.is_set() else exc.stage, text=exc.text))
            return 1
    for note in notes:
        channel.send(Report(note=note))
    channel.send(Report(done=True))
    return 0


def _monitor(channel: Channel) -> trt.IProgressMonitor:
    import tensorrt as trt

    class Monitor(trt.IProgressMonitor):
        """TensorRT calls it from several threads; it stops the build by answering False."""

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
                channel.send(Report(progress=self._phases.state()))

    monitor: Any = Monitor()
    return monitor


if __name__ == "__main__":
    sys.exit(main())
