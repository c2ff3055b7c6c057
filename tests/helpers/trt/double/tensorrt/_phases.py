"""What a build tells its progress monitor: phases that nest, from two threads of the builder at once."""

from __future__ import annotations

import threading
import time

from tensorrt import _logger as log
from tensorrt._machine import build_seconds


class _Canceled(Exception):
    pass


class _Work:
    """Phases as (name, steps, seconds, phases inside)."""

    def __init__(self, monitor) -> None:
        self.monitor = monitor
        self.stop = threading.Event()
        self.failures: list[str] = []
        self._together = threading.Barrier(2)

    def run(self, *arguments) -> None:
        """In a thread: an answer of False ends all of them, and so does an exception."""
        self._together.wait()
        try:
            self.phase(*arguments)
        except _Canceled:
            pass
        except Exception as exc:  # noqa: BLE001 (whatever the callback raises)
            self.failures.append(f"[IProgressMonitor] {exc}")
            self.stop.set()

    def phase(self, name, parent, steps, seconds=0.0, inside=()) -> None:
        """Children first: the steps of a real phase enclose them."""
        self.monitor.phase_start(name, parent, steps)
        for child in inside:
            self.phase(child[0], name, *child[1:])
        for step in range(steps):
            time.sleep(seconds / steps)
            if self.stop.is_set() or self.monitor.step_complete(name, step) is False:
                self.stop.set()
                raise _Canceled
        self.monitor.phase_finish(name)


def tell(monitor, layers: int) -> bool:
    """Go through the phases of a build; False when the monitor wants to stop."""
    if monitor is None:
        time.sleep(build_seconds())
        return True
    work = _Work(monitor)
    preparing = ("Cloning network graph", 1), ("Preparing graph for optimization", 4)
    optimizing = (("Optimizing graph", min(layers, 33), build_seconds()),)
    trees = (
        ("Building engine", None, 6, 0.0, preparing),
        ("Building engine from subgraph", "Building engine", 1, 0.0, optimizing),
    )
    threads = [threading.Thread(target=work.run, args=tree) for tree in trees]
    for thread in threads:
        thread.start()
    interrupted = None
    while any(thread.is_alive() for thread in threads):
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt as exc:  # the real call is C++: Python sees Ctrl-C when it returns
            interrupted = exc
    for line in work.failures:
        log.error(line)
    if interrupted is not None:
        raise interrupted
    return not work.stop.is_set()
