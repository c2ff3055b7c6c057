"""The timing cache: what the builder measured about kernels, kept between builds, one file per TensorRT and GPU.

Timings of another version or GPU are refused by TensorRT and would be wrong, so they are in the file's name. Builds
that run at the same time each add what they found: the file is merged under a lock and replaced as a whole.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from sdtrt.system import env

if TYPE_CHECKING:
    import tensorrt as trt

_LOCK_SECONDS = 60.0


def path_of(folder: str | None, version: str, gpu: str, sm: str) -> Path:
    """The cache file for one TensorRT version and GPU."""
    base = Path(folder) if folder else env.cache_folder() / "timing"
    name = "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", part) for part in (version, gpu, f"sm{sm}"))
    return base / f"{name}.cache"


def open_in(config: trt.IBuilderConfig, path: Path) -> tuple[trt.ITimingCache, str | None]:
    """Give the builder the cache at `path`; an empty one, with the reason, when TensorRT refuses what is there."""
    content = path.read_bytes() if path.exists() else b""
    cache: trt.ITimingCache | None = config.create_timing_cache(content)
    if cache is not None and config.set_timing_cache(cache, False):
        return cache, None
    cache = config.create_timing_cache(b"")
    config.set_timing_cache(cache, False)
    return cache, f"the timing cache {path.name} was refused ({len(content)} bytes) and starts empty"


def merge_into(config: trt.IBuilderConfig, cache: trt.ITimingCache, path: Path) -> str | None:
    """Add what other builds wrote meanwhile, and replace the file; a note when it could not be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=_LOCK_SECONDS):
            others: trt.ITimingCache | None = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
            if others is not None:
                cache.combine(others, False)
            temporary = path.with_name(f".{path.name}.tmp")
            with temporary.open("wb") as file:
                file.write(cache.serialize())
            temporary.replace(path)
    except (OSError, Timeout) as exc:
        return f"the timing cache was not kept: {exc}"  # the engine is built all the same
    return None
