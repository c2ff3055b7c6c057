"""ComponentBuild: one component from the checkpoint's module to an engine that was compared with eager and profiled.

The weights are in memory once. Eager PyTorch runs first, since its outputs are small; a module that was exported is
freed before the engine is built, any other before the engine is loaded.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt import costs, lora
from sdtrt.builder import memory_estimate
from sdtrt.builder.build_plan import BuildPlan, ComponentPlan
from sdtrt.builder.progress_shares import Progress, StageTimer
from sdtrt.bundle import staging
from sdtrt.bundle.manifest import Change, Component, Memory, ProfileMemory, Quantization
from sdtrt.engines import Engine, EngineContext, Source, accuracy
from sdtrt.export import onnx_export
from sdtrt.graph import optimize
from sdtrt.quantization import method
from sdtrt.quantization.calibration_images import CalibrationImages
from sdtrt.shapes.sample_inputs import sample_inputs
from sdtrt.system import malloc, process_memory
from sdtrt.verification import fp32_fallback, reference_outputs
from sdtrt.verification.fp32_fallback import GraphBackup, VerifiedEngine
from sdtrt.verification.reference_images import ReferenceImages
from sdtrt.verification.reference_outputs import ReferenceOutputs

if TYPE_CHECKING:
    from torch import nn


class ComponentBuild:
    """Builds the component of `step` into `folder`; every stage is a method.

    `images` are images of eager, at whose inputs the engine is compared too.
    """

    def __init__(
        self, plan: BuildPlan, step: ComponentPlan, folder: Path, report: Progress, images: ReferenceImages | None
    ) -> None:
        self.plan, self.step, self.folder, self.images = plan, step, folder, images
        self.spec, self.backend = step.spec, plan.backend
        self.sizes = plan.profiles[0].sizes("opt")
        self.half = step.spec.dtype == "float16"
        self.timer = StageTimer(step, report)
        self.module: Any = None
        self.quantization: Quantization | None = None
        self.changes: tuple[Change, ...] = ()
        self.graph_costs: costs.GraphCosts | None = None
        self.backup: GraphBackup | None = None

    def run(self) -> Component:
        """Build the component; returns its record for the manifest."""
        self.module = self.load()
        references = self.run_eager()
        self.quantization = self.calibrate()
        onnx = None
        if self.backend.input_format == "onnx":
            onnx = self.export()
            self.changes = self.optimize(onnx)
        memory = memory_estimate.of_graph(onnx, self.spec, self.plan.profiles, self.graph_costs)
        verified = self.verify(self.build_engine(onnx), references)
        context_bytes = self.profile(verified.engine)
        return self.record(verified, memory, context_bytes)

    def load(self) -> nn.Module | None:
        """The checkpoint's module, with the LoRAs that are built in; None for a backend that needs none."""
        with self.timer.stage("load", "loading weights"):
            process_memory.reset_peak()
            if self.backend.input_format == "nothing":
                return None
            module = self.spec.load(self.plan.folder)
            lora.bake(module, self.spec, self.plan.loras, self.plan.folder)
            return module

    def run_eager(self) -> ReferenceOutputs:
        """The outputs of the module in float32; it gets its own type back, which loses nothing."""
        import torch

        with self.timer.stage("eager", "running eager") as report:
            if not self.backend.is_numeric:
                return ReferenceOutputs((), {})
            recorded = self.images.inputs.get(self.spec.name) if self.images else None
            outputs = reference_outputs.compute(
                self.module.float(), self.spec, self.plan.profiles, recorded_inputs=recorded, report=report
            )
            self.module.to(getattr(torch, self.spec.dtype))
            return outputs

    def calibrate(self) -> Quantization | None:
        """Measure the ranges of quantized layers; None for a component that is not quantized."""
        config = self.plan.config
        quantization = method.method_of(config, self.backend)
        if self.module is None or quantization is None or self.spec.name not in method.COMPONENTS:
            return None
        with self.timer.stage("calibrate", "calibrating") as report:
            images = CalibrationImages(config.calibration, self.plan.folder, self.sizes, self.plan.loras, report)
            return quantization.quantize(self.module, config, images)

    def export(self) -> Path:
        """Export the module to ONNX."""
        with self.timer.stage("export", "exporting"):
            opset = self.plan.config.opset or self.backend.opset
            return onnx_export.capture(self.spec, self.module, self.plan.profiles, opset, self.folder / "work")

    def optimize(self, onnx: Path) -> tuple[Change, ...]:
        """Run the graph passes, and count the costs of the graph."""
        with self.timer.stage("optimize", "optimizing the graph"):
            changes = optimize.optimize(onnx, self.plan.passes, self.plan.config.float32 if self.half else ())
            self.graph_costs = self._costs_of(onnx)
            return changes

    def build_engine(self, onnx: Path | None) -> Engine:
        """Build and load the engine; a half precision graph is kept until the engine is verified."""
        with self.timer.stage("build", "building the engine"):
            _save_final_norm(self.module, self.folder)
            if onnx is not None:
                self._free_module()
                self.backup = GraphBackup(onnx, self.folder, self._make_engine) if self.half else None
            return self._make_engine(onnx)

    def verify(self, engine: Engine, references: ReferenceOutputs) -> VerifiedEngine:
        """Compare the engine with eager; one that fails is built again with parts in float32."""
        with self.timer.stage("verify", "comparing with eager") as report:
            limit = accuracy.LIMITS[self.plan.config.precision].error
            verified = fp32_fallback.verify_or_widen(engine, references, limit, self.backup, report)
            self.changes += (*verified.changes, *verified.engine.passes())
            if verified.onnx is not None:
                self.graph_costs = self._costs_of(verified.onnx)
            shutil.rmtree(self.folder / fp32_fallback.BACKUP, ignore_errors=True)
            self.backup = None  # it refers to the engine and to this object
            return verified

    def profile(self, engine: Engine) -> tuple[int | None, ...]:
        """Write the layers with their times into plan.json and close the engine; its context bytes by profile."""
        with self.timer.stage("profile", "profiling"):
            inputs = {n: t.to(engine.device) for n, t in sample_inputs(self.spec, self.sizes).items()}
            layers = engine.profile(inputs, self.sizes, self.plan.config.profile_runs, self.folder)
            joined = self.backend.join(layers, self.graph_costs) if self.graph_costs else layers
            joined.save(self.folder / "plan.json")
            context_bytes = engine.context_bytes()
            engine.close()
            malloc.give_back()
            return context_bytes

    def record(
        self, verified: VerifiedEngine, memory: tuple[ProfileMemory, ...], context_bytes: tuple[int | None, ...]
    ) -> Component:
        """The record of the component, with the context bytes of the engine in its `memory`."""
        profiles = (m.model_copy(update={"context_bytes": n}) for m, n in zip(memory, context_bytes, strict=True))
        return Component(
            name=self.spec.name,
            key=self.step.key,
            files=staging.record_files(self.folder),
            passes=self.changes,
            parity=verified.report.figures,
            notes=verified.report.notes,
            seconds=self.timer.seconds,
            weight_bytes=self.step.weight_bytes,
            memory=Memory(profiles=tuple(profiles), build_peak_bytes=process_memory.peak_bytes()),
            quantization=self.quantization,
        )

    def _costs_of(self, onnx: Path) -> costs.GraphCosts:
        return costs.graph_costs(onnx, {t.name: t.resolve(self.sizes) for t in self.spec.inputs})

    def _make_engine(self, onnx: Path | None) -> Engine:
        """Build an engine from the graph, or from the module, free the module, and load the engine."""
        calibrated = self.quantization
        ranges = calibrated.layers if calibrated and calibrated.scheme in self.backend.native_precisions else {}
        profiles, options = self.plan.profiles, self.plan.options
        source = Source(
            self.spec, self.module, profiles, onnx, self.timer.stage_progress("build"), ranges, self.plan.passes
        )
        self.backend.build(source, options, self.folder)
        shutil.rmtree(self.folder / "work", ignore_errors=True)
        self._free_module()
        return self.backend.load(self.folder, EngineContext(self.spec, profiles, options, single_profile=True))

    def _free_module(self) -> None:
        """Free the weights of the module, even where something else still refers to the module."""
        if self.module is not None:
            self.module.to("meta")
            malloc.give_back()  # tracing leaves the weights in cycles


def _save_final_norm(module: Any, folder: Path) -> None:
    """Text encoders keep one small layer outside the engine: see `engine_modules.EngineTextEncoder`."""
    if hasattr(module, "final_norm"):
        from safetensors.torch import save_file

        from sdtrt.pipelines.engine_modules import NORM

        save_file({k: v.contiguous() for k, v in module.final_norm().state_dict().items()}, folder / NORM)
