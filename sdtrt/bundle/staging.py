"""Writing a bundle: a staging folder beside it, in which finished components survive a kill.

A build works in `.<name>.building` next to the bundle. A component is renamed into it when it is finished, so a kill
loses at most the component in work, and the next build resumes. The finished folder and the bundle that was there swap
names, so that one of the two can be opened at every moment.
"""

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
        """Components that an interrupted build left complete, by name."""
        components = {}
        for file in self.path.glob(f"[!.]*/{RECORD}"):
            try:
                component = Component.model_validate_json(file.read_text(encoding="utf-8"))
                complete = all((file.parent / n).stat().st_size == f.bytes for n, f in component.files.items())
            except (OSError, ValidationError):
                continue  # incomplete: it is built again
            if complete:
                components[component.name] = component
        return components

    def delete_except(self, names: Collection[str]) -> None:
        """Delete everything but the finished components of these names."""
        for path in self.path.iterdir() if self.path.is_dir() else ():
            if path.is_dir() and path.name not in names:
                shutil.rmtree(path)
            elif path.name not in names:
                path.unlink()

    @contextmanager
    def component(self, name: str) -> Iterator[Path]:
        """A temporary folder that becomes the component's folder at the end, unless an error is raised."""
        work = self.path / f".{name}.tmp"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            yield work
            replace_folder(work, self.path / name)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def copy_component(self, component: Component, source: Path) -> None:
        """Copy a component of the existing bundle in `source`, by hard links where the file system allows."""
        with self.component(component.name) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True, copy_function=link)
            write_text(folder / RECORD, component.model_dump_json(indent=1))

    def commit(self, manifest: Manifest) -> Bundle:
        """Write the manifest and put the folder in the bundle's place; BundleError when a file is missing."""
        for name in self.finished().keys() - manifest.components.keys():
            shutil.rmtree(self.path / name)  # of a build with other components
        for name in manifest.components:
            Bundle(self.path, manifest).check_sizes(name)
        manifest = manifest.model_copy(update={"files": record_files(self.path, {MANIFEST, *manifest.components})})
        write_text(self.path / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
        replace_folder(self.path, self.target)
        return Bundle(self.target, manifest)


@contextmanager
def staging(target: Path) -> Iterator[Staging]:
    """Lock `target` against other builds and yield its staging folder; BundleError when another build has the lock."""
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
    """The bundle at `out`, None when there is none or a damaged one; BundleError for anything else that exists."""
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
    """Delete what a killed build left beside a bundle that is up to date, unless a build is running there."""
    stage = Staging(target.resolve())
    if stage.path.exists() or former(stage.target).exists():
        with suppress(BundleError), staging(target):
            shutil.rmtree(stage.path, ignore_errors=True)


def record_files(folder: Path, exclude: Collection[str] = (RECORD,)) -> dict[str, FileRecord]:
    """Size and sha256 of every file in a folder, without its top-level entries in `exclude`: a component's record."""
    return {
        str(path.relative_to(folder)): FileRecord(bytes=path.stat().st_size, sha256=sha256(path))
        for entry in sorted(folder.iterdir())
        if entry.name not in exclude
        for path in (sorted(entry.rglob("*")) if entry.is_dir() else [entry])
        if path.is_file()
    }
