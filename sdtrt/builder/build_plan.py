"""The plan of a build: for every component its key, whether it is built or reused, why, and how large it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sdtrt import engines, lora
from sdtrt.builder import build_times
from sdtrt.bundle.manifest import Component
from sdtrt.config import BuildConfig
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile

# The name of the final comparison of images among the build times.
IMAGE = "image"


@dataclass(frozen=True)
class ComponentPlan:
    """One component of the build: `action`, the reasons for it, its key, and the finished component to take over."""

    spec: ComponentSpec
    action: Literal["build", "reuse", "resume"]
    reasons: tuple[str, ...]
    key: dict[str, str]
    weight_bytes: int
    present: Component | None = None
    # Seconds by stage, from earlier builds on this machine; None when nothing is known.
    stages: Mapping[str, float] | None = None

    @property
    def expected_s(self) -> float | None:
        """Seconds that it will take, 0 for a component that is taken over; None when nothing is known."""
        if self.action != "build":
            return 0.0
        return None if self.stages is None else sum(self.stages.values())


@dataclass(frozen=True)
class BuildPlan:
    """All decisions of a build, made before the first component is built."""

    config: BuildConfig
    folder: Path
    family: str
    backend: engines.Backend
    options: engines.Options
    passes: tuple[str, ...]
    profiles: tuple[ShapeProfile, ...]
    specs: Mapping[str, ComponentSpec]
    loras: tuple[lora.BakedLora, ...] = ()
    controlnets: Mapping[str, Path] | None = None
    steps: tuple[ComponentPlan, ...] = ()
    image_s: float | None = None

    @property
    def compares_images(self) -> bool:
        """Whether the build ends with a comparison of images, where it has the components for one."""
        return self.config.verify_steps > 0 and self.backend.is_numeric

    @property
    def expected_s(self) -> float | None:
        """Seconds of the whole build; None when those of a part are not known."""
        parts = [*(step.expected_s for step in self.steps), self.image_s]
        return None if None in parts else sum(part for part in parts if part is not None)

    def entry(self, component: str, weight_bytes: int, seconds: Mapping[str, float]) -> build_times.Entry:
        """The record of a component, or of the `IMAGE`, for the build times of this machine."""
        return build_times.Entry(
            machine=build_times.machine(self.backend.device(self.options)),
            backend=self.backend.name,
            component=component,
            precision=self.config.precision,
            profiles="; ".join(map(str, self.profiles)),
            weight_bytes=weight_bytes,
            seconds=dict(seconds),
        )

    @property
    def new_bytes(self) -> int:
        """Weight bytes of the engines that are to be built: about their size on disk."""
        return sum(s.weight_bytes for s in self.steps if s.action == "build")
