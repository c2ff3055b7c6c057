"""manifest.json: the bundle's table of contents, and the record of each component in it."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from sdtrt.config import BuildConfig
from sdtrt.shapes.spec import ShapeProfile
from sdtrt.system.json_records import Record, config_error

# 1: first version. 2: words in American spelling (quantization), passes under other names.
FORMAT_VERSION = 2

MANIFEST = "manifest.json"
RECORD = "component.json"
PIPELINE = "pipeline"


def _inside(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/"):
        raise ValueError("a path that leaves its folder")
    return name


# A path below a bundle's or a component's folder; other people's manifests may name any path.
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


class Quantization(Record):
    """How a component's layers were quantized: largest input magnitude by layer, and a digest of the calibration.

    `errors` are relative errors of the component's output when that layer alone is quantized, where they were measured,
    and `kept` are the layers that stay fp16 because of theirs.
    """

    scheme: str
    by: str
    calibration: dict[str, Any]
    layers: dict[str, float]
    digest: str
    errors: dict[str, float] = {}
    kept: tuple[str, ...] = ()


class ProfileMemory(Record):
    """Memory that one profile needs; None is unknown.

    Activations at the best and the largest size are estimates from the graph; `context_bytes` is the block that the
    engine reports that it takes for them.
    """

    profile: str
    activation_opt_bytes: int | None = None
    activation_max_bytes: int | None = None
    context_bytes: int | None = None


class Memory(Record):
    """Memory of a component by profile, and the peak resident memory of the building process."""

    profiles: tuple[ProfileMemory, ...] = ()
    build_peak_bytes: int | None = None


class Component(Record):
    """The record of one built engine. `key` holds, field by field, what the engine depends on.

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
    quantization: Quantization | None = None


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
    # Files outside the components' folders.
    files: dict[Inside, FileRecord] = {}
    image: dict[str, float] = {}

    @property
    def shape_profiles(self) -> tuple[ShapeProfile, ...]:
        """The profiles, parsed."""
        return tuple(ShapeProfile.parse(p) for p in self.profiles)

    @property
    def build_config(self) -> BuildConfig:
        """The recipe of the build, parsed; keys that this version does not know are left out.

        It is not cached: `model_copy` would copy the value of another recipe. Raises ConfigError for a wrong value.
        """
        try:
            return BuildConfig.model_validate({"model": self.model, **self.config}, extra="ignore")
        except ValidationError as exc:
            raise config_error(exc, list(BuildConfig.model_fields), "the bundle's recipe") from exc
