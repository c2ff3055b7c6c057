"""A benchmark in parts: a part that fails is recorded with its error, and the other parts still run."""

from __future__ import annotations

import json
import math
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Parts:
    """The record of a benchmark, written to its file after every part."""

    def __init__(self, path: Path, **facts: Any) -> None:
        self.path, self.record = path, dict(facts)
        self._started = time.perf_counter()
        self.save()

    def run(self, name: str, part: Callable[[], Any]) -> Any:
        """Record the result of `part` under `name`, or its error; returns the result, or None for an error."""
        try:
            data = part()
        except Exception as exc:  # noqa: BLE001 (any error is recorded, and the other parts still run)
            self.record[name] = {"error": f"{type(exc).__name__}: {exc}", "trace": traceback.format_exc()[-2000:]}
            self.say(f"{name}: FAILED: {self.record[name]['error'][:300]}")
            self.save()
            return None
        self.record[name] = data
        self.say(name)
        self.save()
        return data

    def say(self, text: str) -> None:
        """Print with the seconds since the beginning."""
        print(f"{time.perf_counter() - self._started:6.0f} s  {text}", flush=True)

    @property
    def failed(self) -> list[str]:
        """Parts that have an error."""
        return [name for name, data in self.record.items() if isinstance(data, dict) and "error" in data]

    def save(self) -> None:
        """Write the record; NaN and infinity become null."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(_plain(self.record), indent=1, allow_nan=False) + "\n", encoding="utf-8")

    def end(self) -> int:
        """The exit code: 1 when a part failed."""
        self.say(f"wrote {self.path}" + (f"; failed: {', '.join(self.failed)}" if self.failed else ""))
        sys.stdout.flush()
        return 1 if self.failed else 0


def _plain(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data
