"""Writing a bundle: a staging folder beside it, in which finished components survive a kill.

Files are written beside their final name and renamed. A build works in `.<name>.building` next to the bundle: each
component is renamed in there when it is finished, so a kill loses at most the one in work and the next build resumes.
The finished folder and the bundle that was there swap names, so that at every moment one of the two can be opened.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from sdtrt.bundle.bundle import Bundle
from sdtrt.bundle.manifest import MANIFEST, RECORD, Component, FileRecord, Manifest
from sdtrt.errors import BundleError
from sdtrt.system.files import former, link, replace_folder, sha256, write_text


class Staging:
    """The folder beside a bundle in which a build puts it together."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}.building")

    def finished(self) -> dict[str, Component]:
        """Components that an earlier, interrupted build left complete."""
        found = {}
        for file in self.path.glob(f"[!.]*/{RECORD}"):
            try:
                component = Component.model_validate_json(file.read_text(encoding="utf-8"))
                whole = all((file.parent / n).stat().st_size == f.bytes for n, f in component.files.items())
            except (OSError, ValidationError):
                continue  # torn by the kill: it is built again
            if whole:
                found[component.name] = component
        return found

    def delete_except(self, names: Collection[str]) -> None:
        """Delete everything but the finished components of these names."""
        for path in self.path.iterdir() if self.path.is_dir() else ():
            if path.name in names:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    @contextmanager
    def component(self, name: str) -> Iterator[Path]:
        """A temporary folder that becomes the component's folder when `finish` was called in it."""
        work = self.path / f".{name}.tmp"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            yield work
            replace_folder(work, self.path / name)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def copy_component(self, component: Component, source: Path) -> None:
        """Take a finished component from the present bundle, by hard links where the disk allows."""
        with self.component(component.name) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True, copy_function=link)
            write_text(folder / RECORD, component.model_dump_json(indent=1))

    def commit(self, manifest: Manifest) -> Bundle:
        """Write the manifest and put the whole folder in the bundle's place; BundleError when a file is not there."""
        for name in self.finished().keys() - manifest.components.keys():
            shutil.rmtree(self.path / name)  # of another model that was to be built here
        for name in manifest.components:
            Bundle(self.path, manifest).check_sizes(name)
        manifest = manifest.model_copy(update={"files": record_files(self.path, {MANIFEST, *manifest.components})})
        write_text(self.path / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
        replace_folder(self.path, self.target)
        return Bundle(self.target, manifest)


@contextmanager
def staging(target: Path) -> Iterator[Staging]:
    """Lock `target` against other builds and yield its staging folder; BundleError when another build holds it."""
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(target.with_name(f".{target.name}.lock"), blocking=False)
    try:
        lock.acquire()
    except Timeout as exc:
        raise BundleError(
            "another build of this bundle is running",
            slug="bundle-locked",
            received=target,
            hint="wait for it, or build into another folder with --out",
        ) from exc
    try:
        old, stage = former(target), Staging(target)
        if old.exists() and not target.exists():
            old.rename(target)  # a kill between two renames of replace_folder
        shutil.rmtree(old, ignore_errors=True)
        stage.delete_except(stage.finished())
        yield stage
    finally:
        lock.release()


def open_existing(out: Path) -> Bundle | None:
    """The bundle at `out`, or None; one that is damaged is built anew, but a foreign folder is never replaced."""
    try:
        return Bundle.open(out)
    except BundleError as exc:
        if exc.slug == "bundle-missing" and out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise BundleError(
                "the output exists and is not a bundle",
                slug="bundle-foreign",
                received=out,
                expected="a bundle, or a folder that is new or empty",
                hint="choose another folder with --out",
            ) from exc
        return None


def delete_leftovers(target: Path) -> None:
    """Delete what a killed build left beside a bundle that is up to date, unless a build is at work there."""
    stage = Staging(target.resolve())
    if stage.path.exists() or former(stage.target).exists():
        with suppress(BundleError), staging(target):
            shutil.rmtree(stage.path, ignore_errors=True)


def record_files(folder: Path, without: Collection[str] = (RECORD,)) -> dict[str, FileRecord]:
    """Size and digest of every file in a folder, but what in it is named in `without`: a component's record."""
    return {
        str(path.relative_to(folder)): FileRecord(bytes=path.stat().st_size, sha256=sha256(path))
        for part in sorted(folder.iterdir())
        if part.name not in without
        for path in (sorted(part.rglob("*")) if part.is_dir() else [part])
        if path.is_file()
    }
