"""A finished bundle, opened for reading: a folder with `manifest.json`, `pipeline/` and one folder per component."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from sdtrt.bundle.manifest import FORMAT_VERSION, MANIFEST, PIPELINE, FileRecord, Manifest
from sdtrt.errors import BundleError
from sdtrt.models import checkpoint
from sdtrt.plan.layers import Plan
from sdtrt.system.files import sha256
from sdtrt.system.json_records import read


class Bundle:
    """A finished bundle, opened for reading."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str] | Bundle) -> Bundle:
        """Read the manifest; BundleError when it is missing, damaged or of another format version.

        A bundle that is open already is returned as it is.
        """
        if isinstance(path, Bundle):
            return path
        path = Path(path)
        hint = f"build it: sdtrt build MODEL --out {path}"
        try:
            return cls(path, read(path / MANIFEST, Manifest, FORMAT_VERSION, BundleError, hint))
        except BundleError as exc:
            if exc.slug != "bundle-format":
                raise
            raise BundleError(
                exc.message,
                slug=exc.slug,
                received=exc.received,
                expected=exc.expected,
                hint=f"rebuild it: {_rebuild_command(path)}",
            ) from exc

    @property
    def pipeline_folder(self) -> Path:
        """Configs, tokenizers and scheduler of the pipeline, in diffusers' layout."""
        return self.path / PIPELINE

    @property
    def controlnets(self) -> dict[str, Path] | None:
        """Config folders of the ControlNets by component; None when the U-Net takes no residuals."""
        if self.manifest.build_config.controlnet is None:
            return None
        return {p.name: p for p in sorted(self.pipeline_folder.glob("controlnet*"))}

    def checkpoint(self, model: str | None = None) -> Path:
        """Folder of the checkpoint that the bundle was built from, downloaded when necessary.

        `model` is where it lies now, by default where it was at the build. Raises ModelError when it is not there.
        """
        config = self.manifest.build_config
        return checkpoint.resolve(model or self.manifest.model, config.revision, config.variant)

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


def _rebuild_command(path: Path) -> str:
    """The command that builds a bundle of another format version again, as far as its manifest tells the model."""
    data = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    model = data.get("model") if isinstance(data, dict) else None
    return f"sdtrt build {shlex.quote(model) if isinstance(model, str) else 'MODEL'} --out {shlex.quote(str(path))}"
