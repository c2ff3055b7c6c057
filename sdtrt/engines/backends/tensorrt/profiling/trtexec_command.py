"""The trtexec commands that build and time the same engine: to compare with, or to ask NVIDIA about.

10.x needs --stronglyTyped, which 11 does without; 11 has CUDA graphs, spin wait and device tensors as its defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdtrt.engines.backends.tensorrt.options import TrtOptions
from sdtrt.engines.backends.tensorrt.running.optimization_profiles import by_x
from sdtrt.engines.backends.tensorrt.running.plan_file import Shapes

_TILING = {"none": 0, "fast": 1, "moderate": 2, "full": 3}
_HARDWARE = {"same_compute_capability": "sameComputeCapability", "ampere_plus": "ampere+"}
_POINTS = ("min", "opt", "max")


def build(name: str, profiles: Sequence[Mapping[str, Shapes]], options: TrtOptions, major: int) -> str:
    """The command that builds component `name` with trtexec 10 or 11."""
    flags = [f"--onnx={name}/model.onnx", f"--saveEngine={name}.plan"]
    flags += ["--stronglyTyped"] if major < 11 else []
    for index, profile in enumerate(profiles):
        flags += [f"--profile={index}"] if len(profiles) > 1 else []
        for point, label in enumerate(_POINTS):
            flags.append(f"--{label}Shapes=" + _shapes({n: s[point] for n, s in profile.items()}))
    flags += _options(options)
    flags += ["--profilingVerbosity=detailed", f"--exportLayerInfo={name}.plan.graph.json", "--skipInference"]
    return _lines(flags)


def run(name: str, profiles: Sequence[Mapping[str, Shapes]], options: TrtOptions, runs: int, major: int) -> str:
    """The command that times what `build` made, at the first profile's best shapes, and writes the report's files."""
    flags = [f"--loadEngine={name}.plan"]
    flags += ["--shapes=" + _shapes({n: s[1] for n, s in profiles[0].items()})] if profiles and profiles[0] else []
    flags += ["--useProfile=0"] if len(profiles) > 1 else []
    if major < 11:
        flags += ["--useCudaGraph"] if options.cuda_graphs else []
        flags += ["--useSpinWait", "--noDataTransfers", "--separateProfileRun"]
    elif not options.cuda_graphs:
        flags += ["--noCudaGraph"]
    if options.weight_budget_mib is not None:
        flags.append(f"--weightStreamingBudget={options.weight_budget_mib}M")
    flags += [f"--refitFromOnnx={name}/model.onnx"] if options.strip_plan else []
    flags += ["--warmUp=500", f"--iterations={runs}", "--duration=0", "--profilingVerbosity=detailed"]
    flags += ["--dumpProfile", f"--exportProfile={name}.plan.profile.json", f"--exportTimes={name}.plan.timing.json"]
    flags += [f"--exportLayerInfo={name}.plan.graph.json"]
    return _lines(flags)


def _options(options: TrtOptions) -> list[str]:
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
    return ",".join(f"{name}:{by_x(shape)}" for name, shape in shapes.items())


def _lines(flags: Sequence[str]) -> str:
    """Two to a line where they are short: a command to read and to paste."""
    lines, line = [], "trtexec"
    for flag in flags:
        if len(line) + len(flag) > 110 and line != "trtexec":
            lines.append(line)
            line = "   "
        line += f" {flag}"
    return " \\\n".join([*lines, line])
