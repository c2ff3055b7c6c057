"""The bundle on disk: a folder with `manifest.json`, `pipeline/` (small diffusers files) and one folder per component.

Files are written beside their final name and renamed. A build works in `.<name>.building` next to the bundle: each
component is renamed in there when it is finished, so a kill loses at most the one in work and the next build resumes.
The finished folder and the bundle that was there swap names, so that at every moment one of the two can be opened.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from filelock import FileLock, Timeout
from pydantic import AfterValidator, Field, ValidationError

from sdtrt.errors import BundleError
from sdtrt.plan.layers import Plan
from sdtrt.shapes.spec import ShapeProfile
from sdtrt.system.files import former, link, replace_folder, sha256, write_text
from sdtrt.system.json_records import Record, read

# 1: first version.
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
RECORD = "component.json"
PIPELINE = "pipeline"


def _inside(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/"):
        raise ValueError("a path that leaves its folder")
    return name


# A path below a bundle's or a component's folder: manifests come from other people too.
Inside = Annotated[str, AfterValidator(_inside)]


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
    """How a component's layers were quantised: largest input magnitude by layer, and a digest of all that was found.

    `errors` are relative errors of the component's output when that layer alone is rounded, where they were measured,
    `kept` the layers left out for theirs.
    """

    scheme: str
    by: str
    calibration: dict[str, Any]
    layers: dict[str, float]
    digest: str
    errors: dict[str, float] = {}
    kept: tuple[str, ...] = ()


class ProfileMemory(Record):
    """Memory that one profile needs; None is not known.

    Activations at its best and its largest size are those of the graph; `context_bytes` is the block that the engine
    says it will take for them.
    """

    profile: str
    activation_opt_bytes: int | None = None
    activation_max_bytes: int | None = None
    context_bytes: int | None = None


class Memory(Record):
    """Memory of a component by profile, and the most that the building process had resident meanwhile."""

    profiles: tuple[ProfileMemory, ...] = ()
    build_peak_bytes: int | None = None


class Component(Record):
    """Everything known about one built engine. `key` holds, field by field, what it depends on.

    `parity` is the worst relative error against eager PyTorch by size, `notes` say which sizes were left out and why.
    """

    name: str
    key: dict[str, str]
    files: dict[Inside, FileRecord]
    passes: tuple[Change, ...] = ()
    parity: dict[str, float] = {}
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = {}
    weight_bytes: int | None = None
    memory: Memory | None = None
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
    # What lies outside the components' folders.
    files: dict[Inside, FileRecord] = {}
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
            self._check_size(f"{component}/{name}", known)

    def check_files(self, component: str) -> None:
        """Compare every file's content with the recorded sha256; reads all of it."""
        self.check_sizes(component)
        for name, known in self.manifest.components[component].files.items():
            self._check_content(f"{component}/{name}", known)

    def check_everything(self) -> None:
        """`check_files` of all components and of what lies beside them."""
        for component in self.manifest.components:
            self.check_files(component)
        self.check_beside()

    def check_beside(self) -> None:
        """Compare what lies beside the components, configs and tokenizers, with the recorded sizes and sha256."""
        for name, known in self.manifest.files.items():
            self._check_size(name, known)
            self._check_content(name, known)

    def check_code(self, component: str, patterns: Sequence[str]) -> None:
        """As `check_files`, for files whose names match a pattern: what runs must be what was built."""
        for name, known in self.manifest.components[component].files.items():
            if any(fnmatch(name, pattern) for pattern in patterns):
                self._check_content(f"{component}/{name}", known)

    def _check_size(self, name: str, known: FileRecord) -> None:
        path = self.path / name
        size = path.stat().st_size if path.is_file() else None
        if size != known.bytes:
            received = "no such file" if size is None else f"{size} bytes"
            raise self._damaged(name, received, f"{known.bytes} bytes")

    def _check_content(self, name: str, known: FileRecord) -> None:
        if (found := sha256(self.path / name)) != known.sha256:
            raise self._damaged(name, f"sha256 {found[:12]}", f"sha256 {known.sha256[:12]}")

    def _damaged(self, name: str, received: str, expected: str) -> BundleError:
        return BundleError(
            f"{name} is damaged",
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
                whole = all((file.parent / n).stat().st_size == f.bytes for n, f in component.files.items())
            except (OSError, ValidationError):
                continue  # torn by the kill: it is built again
            if whole:
                found[component.name] = component
        return found

    def keep(self, names: Collection[str]) -> None:
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

    def adopt(self, component: Component, source: Path) -> None:
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
        manifest = manifest.model_copy(update={"files": describe_files(self.path, {MANIFEST, *manifest.components})})
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
        stage.keep(stage.finished())
        yield stage
    finally:
        lock.release()


def present(out: Path) -> Bundle | None:
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


def tidy(target: Path) -> None:
    """Delete what a killed build left beside a bundle that is up to date, unless a build is at work there."""
    stage = Staging(target.resolve())
    if stage.path.exists() or former(stage.target).exists():
        with suppress(BundleError), staging(target):
            shutil.rmtree(stage.path, ignore_errors=True)


def describe_files(folder: Path, without: Collection[str] = (RECORD,)) -> dict[str, FileRecord]:
    """Size and digest of every file in a folder, but what in it is named in `without`: a component's record."""
    return {
        str(path.relative_to(folder)): FileRecord(bytes=path.stat().st_size, sha256=sha256(path))
        for part in sorted(folder.iterdir())
        if part.name not in without
        for path in (sorted(part.rglob("*")) if part.is_dir() else [part])
        if path.is_file()
    }


def differences(built: Mapping[str, str], asked: Mapping[str, str]) -> tuple[str, ...]:
    """Fields in which two keys differ, as "precision: fp32 -> fp16"."""
    fields = list(dict.fromkeys([*built, *asked]))
    return tuple(
        f"{f}: {built.get(f, '(none)')} -> {asked.get(f, '(none)')}" for f in fields if built.get(f) != asked.get(f)
    )
