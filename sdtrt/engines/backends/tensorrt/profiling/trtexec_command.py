"""The trtexec commands that build and time the same engine, for a comparison or a question to NVIDIA.

10.x needs --stronglyTyped, which 11 does not; 11 has CUDA graphs, spin wait and device tensors as its defaults.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import wrap

from sdtrt.engines.backends.tensorrt.options import TrtOptions
from sdtrt.engines.backends.tensorrt.running.optimization_profiles import format_shape, plan_profiles
from sdtrt.engines.backends.tensorrt.running.plan_file import ShapeRange
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile

_TILING = {"none": 0, "fast": 1, "moderate": 2, "full": 3}
_HARDWARE = {"same_compute_capability": "sameComputeCapability", "ampere_plus": "ampere+"}


@dataclass(frozen=True)
class TrtexecCommand:
    """Commands for the engine that `sdtrt build` makes of a component; `major` is the version of trtexec, 10 or 11."""

    spec: ComponentSpec
    profiles: Sequence[ShapeProfile]
    options: TrtOptions
    major: int

    @cached_property
    def ranges(self) -> tuple[dict[str, ShapeRange], ...]:
        """Shape ranges of the dynamic inputs by profile; empty when there are none.

        An input with one size in all profiles is static in the graph, and trtexec refuses a range for it.
        """
        ranges = plan_profiles(self.spec, self.profiles, self.options.guided_only)
        dynamic = [name for name in ranges[0] if len({shape for r in ranges for shape in r[name]}) > 1]
        return tuple({name: r[name] for name in dynamic} for r in ranges) if dynamic else ()

    def build(self) -> str:
        """The command that builds the engine."""
        name = self.spec.name
        flags = [f"--onnx={name}/model.onnx", f"--saveEngine={name}.plan"]
        flags += ["--stronglyTyped"] if self.major < 11 else []
        for index, profile in enumerate(self.ranges):
            flags += [f"--profile={index}"] if len(self.ranges) > 1 else []
            for point, label in enumerate(("min", "opt", "max")):
                flags.append(f"--{label}Shapes=" + _shapes({n: s[point] for n, s in profile.items()}))
        flags += _option_flags(self.options)
        flags += ["--profilingVerbosity=detailed", f"--exportLayerInfo={name}.plan.graph.json", "--skipInference"]
        return _join_flags(flags)

    def run(self, runs: int) -> str:
        """The command that times the engine at the first profile's opt shapes, and writes the report's files."""
        plan, options = f"{self.spec.name}.plan", self.options
        flags = [f"--loadEngine={plan}"]
        if self.ranges:
            flags.append("--shapes=" + _shapes({n: s[1] for n, s in self.ranges[0].items()}))
        flags += ["--useProfile=0"] if len(self.ranges) > 1 else []
        if self.major < 11:
            flags += ["--useCudaGraph"] if options.cuda_graphs else []
            flags += ["--useSpinWait", "--noDataTransfers", "--separateProfileRun"]
        elif not options.cuda_graphs:
            flags += ["--noCudaGraph"]
        if options.weight_budget_mib is not None:
            flags.append(f"--weightStreamingBudget={options.weight_budget_mib}M")
        flags += [f"--refitFromOnnx={self.spec.name}/model.onnx"] if options.strip_plan else []
        flags += ["--warmUp=500", f"--iterations={runs}", "--duration=0", "--profilingVerbosity=detailed"]
        flags += ["--dumpProfile", f"--exportProfile={plan}.profile.json", f"--exportTimes={plan}.timing.json"]
        flags += [f"--exportLayerInfo={plan}.graph.json"]
        return _join_flags(flags)


def _option_flags(options: TrtOptions) -> list[str]:
    flags = [f"--builderOptimizationLevel={options.optimization_level}"]
    flags += [f"--maxAuxStreams={options.aux_streams}"] if options.aux_streams is not None else []
    flags += [f"--memPoolSize=workspace:{options.workspace_mib}"] if options.workspace_mib is not None else []
    flags += [f"--tilingOptimizationLevel={_TILING[options.tiling]}"] if options.tiling != "none" else []
    flags += [] if options.tf32 else ["--noTF32"]
    flags += ["--versionCompatible"] if options.version_compatible else []
    if options.hardware_compatibility != "none":
        flags.append(f"--hardwareCompatibilityLevel={_HARDWARE[options.hardware_compatibility]}")
    flags += ["--allowWeightStreaming"] if options.weight_streaming else []
    flags += ["--stripWeights"] if options.strip_plan else []
    flags += ["--refit"] if options.refit == "all" else []  # there is no flag for identical weights only
    flags.append("--timingCacheFile=tensorrt.cache" if options.timing_cache else "--noBuilderCache")
    return flags


def _shapes(shapes: Mapping[str, Sequence[int]]) -> str:
    return ",".join(f"{name}:{format_shape(shape)}" for name, shape in shapes.items())


def _join_flags(flags: Sequence[str]) -> str:
    """One command in lines of at most 111 characters."""
    command = " ".join(["trtexec", *flags])
    lines = wrap(command, 111, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return " \\\n".join(lines)
