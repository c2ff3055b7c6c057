"""replace_folder(): a folder in the place of another, with no moment at which the place is empty."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

_HERE = -100  # AT_FDCWD: paths are taken as they are
_EXCHANGE = 2  # RENAME_EXCHANGE


def replace_folder(new: Path, target: Path) -> None:
    """Put `new` in the place of `target`, and delete what was there.

    On Linux the two swap names in one step. Where the file system cannot, `target` is away between two renames; a kill
    there leaves `.<name>.old`, which `store.staging` puts back.
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
    """Where the folder that stood at `target` lies until it is deleted."""
    return target.with_name(f".{target.name}.old")


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names; False where the C library or the file system has no call for it."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    return bool(renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0)
