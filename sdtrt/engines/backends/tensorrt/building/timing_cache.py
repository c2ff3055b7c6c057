"""The timing cache: kernel timings of the builder, kept between builds, one file per TensorRT version and GPU.

TensorRT refuses timings of another version or GPU, so both are in the file's name. Concurrent builds each add their
timings: the file is merged under a lock and replaced as a whole.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from sdtrt.system import env
from sdtrt.system.files import write_bytes

if TYPE_CHECKING:
    import tensorrt as trt

    from sdtrt.engines.backends.tensorrt.cuda import Device

_LOCK_SECONDS = 60.0


def cache_path(folder: str | None, version: str, device: Device) -> Path:
    """The cache file of one TensorRT version and GPU; `folder` is the user's cache folder by default."""
    base = Path(folder) if folder else env.cache_folder() / "timing"
    name = "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", part) for part in (version, device.name, f"sm{device.sm}"))
    return base / f"{name}.cache"


def load_into(config: trt.IBuilderConfig, path: Path) -> tuple[trt.ITimingCache, str | None]:
    """Set the cache at `path` in the config; an empty one and a note when TensorRT refuses its content."""
    content = path.read_bytes() if path.exists() else b""
    cache: trt.ITimingCache | None = config.create_timing_cache(content)
    if cache is not None and config.set_timing_cache(cache, False):
        return cache, None
    cache = config.create_timing_cache(b"")
    config.set_timing_cache(cache, False)
    return cache, f"the timing cache {path.name} was refused ({len(content)} bytes) and starts empty"


def merge_and_save(config: trt.IBuilderConfig, cache: trt.ITimingCache, path: Path) -> str | None:
    """Add the timings that other builds have written, and replace the file; a note when that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=_LOCK_SECONDS):
            others: trt.ITimingCache | None = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
            if others is not None:
                cache.combine(others, False)
            write_bytes(path, cache.serialize())
    except (OSError, Timeout) as exc:
        return f"the timing cache was not kept: {exc}"  # the engine is built without it
    return None
