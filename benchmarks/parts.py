"""A benchmark in parts: what fails is written down with its error and stops no other part, and every part is kept."""

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

    def __init__(self, path: Path, **known: Any) -> None:
        self.path, self.record = path, dict(known)
        self._started = time.perf_counter()
        self.save()

    def run(self, name: str, part: Callable[[], Any]) -> Any:
        """Keep under `name` what `part` returns, or its error; returns it, or None when it failed."""
        try:
            found = part()
        except Exception as exc:  # noqa: BLE001 (whatever it is, it is written down and the other parts go on)
            self.record[name] = {"error": f"{type(exc).__name__}: {exc}", "trace": traceback.format_exc()[-2000:]}
            self.say(f"{name}: FAILED: {self.record[name]['error'][:300]}")
            self.save()
            return None
        self.record[name] = found
        self.say(name)
        self.save()
        return found

    def say(self, text: str) -> None:
        """Print with the seconds since the beginning."""
        print(f"{time.perf_counter() - self._started:6.0f} s  {text}", flush=True)

    @property
    def failed(self) -> list[str]:
        """Parts that have an error."""
        return [name for name, found in self.record.items() if isinstance(found, dict) and "error" in found]

    def save(self) -> None:
        """Write what there is; what is not a finite number is null."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(_plain(self.record), indent=1, allow_nan=False) + "\n", encoding="utf-8")

    def end(self) -> int:
        """The exit code: 1 when a part failed."""
        self.say(f"wrote {self.path}" + (f"; failed: {', '.join(self.failed)}" if self.failed else ""))
        sys.stdout.flush()
        return 1 if self.failed else 0


def _plain(found: Any) -> Any:
    if isinstance(found, dict):
        return {str(key): _plain(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_plain(value) for value in found]
    if isinstance(found, float) and not math.isfinite(found):
        return None
    return found
