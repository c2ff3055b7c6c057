"""Files and folders: written under a temporary name and renamed, swapped in one step, linked, digested."""

import ctypes
import hashlib
import os
import shutil
from pathlib import Path

_AT_FDCWD = -100  # relative paths start from the current folder
_RENAME_EXCHANGE = 2


def replace_folder(new: Path, target: Path) -> None:
    """Rename `new` to `target`, and delete the folder that was there.

    On Linux the two swap names in one step. Where the file system cannot, `target` is missing between two renames; a
    kill there leaves `.<name>.old`, which `bundle.staging` renames back.
    """
    old = former(target)
    shutil.rmtree(old, ignore_errors=True)
    if not target.exists():
        new.rename(target)
        return
    if _exchange(new, target):
        new.rename(old)
    else:
        target.rename(old)
        new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def former(target: Path) -> Path:
    """The name of the folder that was at `target`, until it is deleted."""
    return target.with_name(f".{target.name}.old")


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names; False where the C library or the file system has no call for it."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 under a temporary name and rename, so that no reader sees half a file."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write under a temporary name and rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def sha256(path: Path) -> str:
    """Digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def link(source: str | Path, target: str | Path) -> None:
    """A hard link where the disk allows, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
