"""NVIDIA's own Python bindings of three TensorRT releases, read for what they declare: fetched by pip, never run.

The binding wheels are small and ordinary; they import once the libraries that they link to have a stand-in. What they
declare is kept as one JSON file per release: the contract test compares our code with it, the double is built from it.
Without a package index the tests that need them are skipped; with SDTRT_REQUIRE_BINDINGS set, as in CI, they fail.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

from filelock import FileLock
from trt._elf import empty_library, machine_of

# Release: the package that holds its bindings. The oldest supported, the last of 10.x, the newest.
RELEASES = {
    "10.12.0.36": "tensorrt-cu12-bindings",
    "10.16.1.11": "tensorrt-cu13-bindings",
    "11.4.0.106": "tensorrt-cu13-bindings",
}
OLDEST, NEWEST = next(iter(RELEASES)), list(RELEASES)[-1]
_DUMP = Path(__file__).parent / "_dump.py"
_SONAME = re.compile(rb"libnv\w+\.so\.\d+")
_ENTRY_POINT = re.compile(rb"\0(create(?:Infer|Nv)\w+|get\w*PluginRegistry|getNvOnnxParserVersion|initLibNv\w+)(?=\0)")


class Unreachable(Exception):
    """The package index has no such wheel for this Python, or there is no index."""


_failed: dict[str, str] = {}


def declarations(release: str, cache_folder: Path) -> Path:
    """The JSON file of what `release` declares, made on first use; raises Unreachable, the second time at once."""
    folder = cache_folder / "tensorrt" / release / f"py{sys.version_info.major}{sys.version_info.minor}"
    # The name follows the script, so that a changed script does not read an old file.
    out = folder / f"api-{zlib.crc32(_DUMP.read_bytes()):08x}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):  # several workers of one test run
        if not out.exists():
            _unpack(_download(release, folder), folder / "unpacked")
            part = out.with_name(f".{out.name}.part")
            command = [sys.executable, str(_DUMP), str(folder / "unpacked"), str(part)]
            subprocess.run(command, check=True, capture_output=True, text=True)
            part.replace(out)
    return out


def _download(release: str, folder: Path) -> Path:
    if found := list(folder.glob("*.whl")):
        return found[0]
    if release not in _failed:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--retries", "1", "--timeout", "15", "--dest", str(folder)]
        done = subprocess.run([*command, wheel := f"{RELEASES[release]}=={release}"], capture_output=True, text=True)
        if done.returncode == 0:
            return next(folder.glob("*.whl"))
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip said nothing"]
        _failed[release] = f"NVIDIA's bindings cannot be fetched: {wheel}: {lines[-1]}"
    if os.environ.get("SDTRT_REQUIRE_BINDINGS"):
        raise RuntimeError(_failed[release])
    raise Unreachable(_failed[release])


def _unpack(wheel: Path, folder: Path) -> None:
    """Unpack the wheel and put an empty library beside the bindings for each one that they link to."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    package = folder / "tensorrt_bindings"
    library = (package / "tensorrt.so").read_bytes()
    names = sorted({name.decode() for name in _ENTRY_POINT.findall(library)})
    for soname in {name.decode() for name in _SONAME.findall(library)}:
        (package / soname).write_bytes(empty_library(soname, names, machine_of(library)))


class Api:
    """What one release declares."""

    def __init__(self, path: Path) -> None:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        self.version: str = data["version"]
        self.classes: dict[str, Any] = data["classes"]
        self.functions: dict[str, Any] = data["functions"]
        self.aliases: dict[str, str] = data["aliases"]

    def member(self, cls: str, name: str) -> dict[str, Any] | None:
        """The member `name` of a class or of what it inherits from."""
        for owner in (cls, *self.classes[cls]["bases"]):
            if owner in self.classes and name in self.classes[owner]["members"]:
                found: dict[str, Any] = self.classes[owner]["members"][name]
                return found
        return None
