"""The subject of the checks: two components of the embedded model, exported once, built and loaded per check."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt import engines, models, tiny_model
from sdtrt.engines import Backend, Engine, EngineContext, Source
from sdtrt.export import onnx_export
from sdtrt.graph import optimize
from sdtrt.shapes.sample_inputs import sample_inputs
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile

if TYPE_CHECKING:
    from torch import Tensor, nn

COMPONENTS = ("text_encoder", "unet")
# Two sizes with different opt batches, so that results show which of the two profiles ran.
PROFILES = ("B=1:1:2,H=64,W=64", "B=1:2:2,H=128,W=128")


class Bench:
    """Engines of one backend in one folder."""

    def __init__(self, backend: Backend, precision: str, folder: Path) -> None:
        self.backend, self.precision, self.folder = backend, precision, folder
        family = models.family_of(tiny_model.MODEL)
        self.specs: dict[str, ComponentSpec] = family.components(tiny_model.MODEL, precision)
        self._float = family.components(tiny_model.MODEL, "fp32")
        default = family.default_profile(tiny_model.MODEL)
        self.profiles = tuple(ShapeProfile.parse(p).with_defaults(default) for p in PROFILES)
        self._modules: dict[str, nn.Module] = {}
        self._engines: list[Engine] = []
        self.built: list[Path] = []

    def eager(self, name: str) -> nn.Module:
        """The module in float32."""
        if name not in self._modules:
            self._modules[name] = self._float[name].load(tiny_model.MODEL)
        return self._modules[name]

    def onnx(self, name: str) -> Path:
        """The exported graph after the backend's passes."""
        folder = self.folder / f"{name}.onnx"
        path = folder / onnx_export.MODEL
        if not path.exists():
            spec = self.specs[name]
            exported = onnx_export.capture(
                spec, spec.load(tiny_model.MODEL), self.profiles, self.backend.opset, folder / "work"
            )
            optimize.optimize(exported, self.backend.passes if self.backend.input_format == "onnx" else ())
            for file in exported.parent.iterdir():
                file.replace(folder / file.name)
        return path

    def build(self, name: str, variant: str = "plain", **options: Any) -> Path:
        """Build into a folder named after the component and the variant, and return it."""
        target = self.folder / f"{name}.{variant}"
        shutil.rmtree(target, ignore_errors=True)
        source = self.onnx(name)
        shutil.copytree(source.parent, target / "work")
        onnx = target / "work" / source.name
        build_source = Source(self.specs[name], self.eager(name), self.profiles, onnx, passes=self.backend.passes)
        self.backend.build(build_source, self.backend.check_options(options), target)
        shutil.rmtree(target / "work", ignore_errors=True)
        self.built.append(target)
        return target

    def load(self, name: str, variant: str = "plain", **options: Any) -> Engine:
        """Load a built engine; `close` closes it."""
        validated = self.backend.check_options(options)
        context = EngineContext(self.specs[name], self.profiles, validated, "sdtrt doctor --self-test")
        engine = self.backend.load(self.folder / f"{name}.{variant}", context)
        self._engines.append(engine)
        return engine

    def inputs(self, engine: Engine, sizes: Mapping[str, int]) -> dict[str, Tensor]:
        """Noise of these sizes, on the engine's device."""
        return {n: t.to(engine.device) for n, t in sample_inputs(engine.spec, sizes).items()}

    def sizes(self, profile: int = 0, point: str = "opt") -> dict[str, int]:
        """Sizes of a profile."""
        return self.profiles[profile].sizes(point)

    def close(self) -> None:
        """Free all engines."""
        for engine in self._engines:
            engine.close()
        self._engines.clear()


def bench(backend: str, folder: Path) -> Bench:
    """fp16 for TensorRT, else fp32."""
    return Bench(engines.load(backend), "fp16" if backend == "tensorrt" else "fp32", folder)
