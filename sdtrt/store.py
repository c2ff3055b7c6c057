"""The bundle on disk: a folder with `manifest.json`, `pipeline/` (small diffusers files) and one folder per component.

Files are written beside their final name and renamed. A build works in `.<name>.building` next to the bundle: each
component is renamed in there when it is finished, so a kill loses at most the one in work and the next build resumes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from sdtrt.errors import BundleError
from sdtrt.plan import Plan
from sdtrt.records import Record, read
from sdtrt.spec import ShapeProfile

# 1: first version.
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
RECORD = "component.json"
PIPELINE = "pipeline"


class FileRecord(Record):
    """Size and digest of one file."""

    bytes: int
    sha256: str


class Change(Record):
    """What one graph pass did: nodes before and after, and notes such as why it did not apply."""

    name: str
    version: int
    changed: int
    nodes_before: int
    nodes_after: int
    notes: tuple[str, ...] = ()


class Quantisation(Record):
    """How a component's layers were quantised: largest input magnitude by layer, and a digest of all that was found."""

    scheme: str
    by: str
    calibration: dict[str, Any]
    layers: dict[str, float]
    digest: str


class Component(Record):
    """Everything known about one built engine. `key` holds, field by field, what it depends on.

    `parity` is the worst relative error against eager PyTorch by size, `notes` say which sizes were left out and why.
    """

    name: str
    key: dict[str, str]
    files: dict[str, FileRecord]
    passes: tuple[Change, ...] = ()
    parity: dict[str, float] = {}
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = {}
    weight_bytes: int | None = None
    quantisation: Quantisation | None = None


class Manifest(Record):
    """The bundle's table of contents."""

    format: int = FORMAT_VERSION
    family: str
    model: str
    backend: str
    precision: str
    profiles: tuple[str, ...]
    options: dict[str, Any] = {}
    config: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    created: str = ""
    components: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Component] = {}
    image: dict[str, float] = {}

    @property
    def shape_profiles(self) -> tuple[ShapeProfile, ...]:
        """The profiles, parsed."""
        return tuple(ShapeProfile.parse(p) for p in self.profiles)


class Bundle:
    """A finished bundle, opened for reading."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read the manifest; BundleError when it is missing, damaged or of another format version."""
        path = Path(path)
        hint = f"build it: sdtrt build MODEL --out {path}"
        return cls(path, read(path / MANIFEST, Manifest, FORMAT_VERSION, BundleError, hint))

    @property
    def pipeline_folder(self) -> Path:
        """Configs, tokenizers and scheduler of the pipeline, in diffusers' layout."""
        return self.path / PIPELINE

    @property
    def controlnets(self) -> dict[str, Path] | None:
        """Config folders of the ControlNets by component; None when the U-Net takes no residuals."""
        if self.manifest.config.get("controlnet") is None:
            return None
        return {p.name: p for p in sorted(self.pipeline_folder.glob("controlnet*"))}

    def folder(self, component: str) -> Path:
        """Folder of one component's engine; BundleError when it was not built."""
        if component not in self.manifest.components:
            raise BundleError(
                f"the bundle has no {component}",
                slug="component-missing",
                received=component,
                expected=", ".join(self.manifest.components),
                hint=f"build it too: sdtrt build {self.manifest.model} --out {self.path}",
            )
        return self.path / component

    def plan(self, component: str) -> Plan:
        """The plan of one component."""
        return Plan.load(self.folder(component) / "plan.json")

    def check_sizes(self, component: str) -> None:
        """Compare every file's size with the record; BundleError names the first that differs."""
        for name, known in self.manifest.components[component].files.items():
            path = self.folder(component) / name
            size = path.stat().st_size if path.is_file() else None
            if size != known.bytes:
                received = "no such file" if size is None else f"{size} bytes"
                raise self._damaged(component, name, received, f"{known.bytes} bytes")

    def check_files(self, component: str) -> None:
        """Compare every file's content with the recorded sha256; reads all of it."""
        self.check_sizes(component)
        for name, known in self.manifest.components[component].files.items():
            if (found := sha256(self.folder(component) / name)) != known.sha256:
                raise self._damaged(component, name, f"sha256 {found[:12]}", f"sha256 {known.sha256[:12]}")

    def _damaged(self, component: str, name: str, received: str, expected: str) -> BundleError:
        return BundleError(
            f"{component}/{name} is damaged",
            slug="file-damaged",
            received=received,
            expected=expected,
            hint=f"rebuild: sdtrt build {self.manifest.model} --out {self.path} --force",
        )


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
            except (OSError, ValidationError):
                continue  # torn by the kill: it is built again
            found[component.name] = component
        return found

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

    def adopt(self, component: Component, source: Path) -> None:
        """Take a finished component from the present bundle, by hard links where the disk allows."""
        with self.component(component.name) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True, copy_function=link)
            write_text(folder / RECORD, component.model_dump_json(indent=1))

    def commit(self, manifest: Manifest) -> Bundle:
        """Write the manifest and put the whole folder in the bundle's place."""
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
        old = target.with_name(f".{target.name}.old")
        if old.exists() and not target.exists():
            old.rename(target)  # a kill between the two renames of replace_folder
        yield Staging(target)
    finally:
        lock.release()


def replace_folder(new: Path, target: Path) -> None:
    """Put `new` in the place of `target`. A kill in between leaves `.<name>.old`, which `staging` puts back."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write beside and rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def sha256(path: Path) -> str:
    """Digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def describe_files(folder: Path) -> dict[str, FileRecord]:
    """Size and digest of every file in a component's folder, except its record."""
    return {
        str(p.relative_to(folder)): FileRecord(bytes=p.stat().st_size, sha256=sha256(p))
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != RECORD
    }


def differences(built: Mapping[str, str], asked: Mapping[str, str]) -> tuple[str, ...]:
    """Fields in which two keys differ, as "precision: fp32 -> fp16"."""
    fields = list(dict.fromkeys([*built, *asked]))
    return tuple(
        f"{f}: {built.get(f, '(none)')} -> {asked.get(f, '(none)')}" for f in fields if built.get(f) != asked.get(f)
    )


def link(source: str | Path, target: str | Path) -> None:
    """A hard link where the disk allows, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
