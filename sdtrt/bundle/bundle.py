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
    """A finished bundle: its folder and its manifest."""

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
        """Compare the size of every file of a component with the record; BundleError names the first that differs."""
        for name, record in self.manifest.components[component].files.items():
            self._check_size(f"{component}/{name}", record)

    def check_code(self, component: str, patterns: Sequence[str]) -> None:
        """Compare the sha256 of a component's files whose names match a pattern with the record."""
        for name, record in self.manifest.components[component].files.items():
            if any(fnmatch(name, pattern) for pattern in patterns):
                self._check_content(f"{component}/{name}", record)

    def check_files(self, component: str) -> None:
        """Compare the sizes and sha256 of all files of a component; reads all of them."""
        self.check_sizes(component)
        self.check_code(component, ["*"])

    def check_beside(self) -> None:
        """Compare the files beside the components, configs and tokenizers, with the recorded sizes and sha256."""
        for name, record in self.manifest.files.items():
            self._check_size(name, record)
            self._check_content(name, record)

    def check_everything(self) -> None:
        """`check_files` of all components, and `check_beside`."""
        for component in self.manifest.components:
            self.check_files(component)
        self.check_beside()

    def _check_size(self, name: str, record: FileRecord) -> None:
        path = self.path / name
        size = path.stat().st_size if path.is_file() else None
        if size != record.bytes:
            received = "no such file" if size is None else f"{size} bytes"
            raise self._damaged(name, received, f"{record.bytes} bytes")

    def _check_content(self, name: str, record: FileRecord) -> None:
        if (digest := sha256(self.path / name)) != record.sha256:
            raise self._damaged(name, f"sha256 {digest[:12]}", f"sha256 {record.sha256[:12]}")

    def _damaged(self, name: str, received: str, expected: str) -> BundleError:
        return BundleError(
            f"{name} is damaged",
            slug="file-damaged",
            received=received,
            expected=expected,
            hint=f"rebuild: sdtrt build {self.manifest.model} --out {self.path} --force",
        )


def _rebuild_command(path: Path) -> str:
    """The command that rebuilds a bundle of another format version; MODEL stands for a model that is not recorded."""
    data = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    model = data.get("model") if isinstance(data, dict) else None
    return f"sdtrt build {shlex.quote(model) if isinstance(model, str) else 'MODEL'} --out {shlex.quote(str(path))}"
