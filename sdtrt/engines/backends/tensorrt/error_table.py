"""The table of TensorRT's log messages, and the errors with hints that they become.

Cases are matched in order, so the more specific ones stand first: an engine that cannot be deserialized logs the
version first and a null pointer last. Texts are those of TensorRT 8 to 11; a message outside the table keeps its text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sdtrt.errors import BackendUnavailable, SdtrtError, ShapeError


@dataclass(frozen=True)
class ErrorCase:
    """One kind of failure: the pattern of its message, and the error that it becomes.

    `error` is None for what is a BuildError while building and an EngineError afterwards.
    """

    slug: str
    pattern: str
    message: str
    expected: str
    hint: str
    error: type[SdtrtError] | None = None


_REPORT = "this is a fault of sdtrt: report it with this message"

CASES = (
    ErrorCase(
        "no-driver",
        r"Failed to open cuda driver|CUDA initialization failure|no CUDA-capable device|CUDA driver version is insuf",
        "TensorRT finds no CUDA driver",
        "an NVIDIA driver that this TensorRT supports",
        "nvidia-smi must list a GPU; in a container, start it with --gpus all",
        BackendUnavailable,
    ),
    ErrorCase(
        "gpu-memory",
        r"out of memory|OutOfMemory|Requested amount of GPU memory",
        "the GPU has not enough free memory",
        "several times the weights of the component, free",
        "end other programs on the GPU, build narrower profiles, or cap the builder: options: {{workspace_mib: 4096}}",
    ),
    ErrorCase(
        "plan-version",
        r"not compatible with this version of TensorRT|incompatible serialization version|Version tag does not match"
        r"|stdVersionRead",
        "the engine was built with another version of TensorRT",
        "a plan of the TensorRT that is installed",
        "rebuild: {rebuild} --force",
    ),
    ErrorCase(
        "plan-gpu",
        r"generated on an incompatible device|incompatible (?:compute )?(?:device|capability)",
        "the engine was built on another GPU",
        "a plan of this GPU",
        "rebuild: {rebuild} --force, or build with hardware_compatibility for both",
    ),
    ErrorCase(
        "plan-host-code",
        r"host code|engine_host_code_allowed|EngineHostCodeAllowed",
        "the engine contains host code, which does not run without consent",
        "a plan that was built without version_compatible, or the option set for loading too",
        'load it only if you trust its source: options={{"version_compatible": True}}',
    ),
    ErrorCase(
        "engine-damaged",
        r"[Mm]agic ?[Tt]ag|kEXPECTED_MAGIC_TAG|Error Code 1: Serialization|deserialization (?:error|failed)",
        "the engine's plan cannot be loaded",
        "the file that was built",
        "rebuild: {rebuild} --force",
    ),
    ErrorCase(
        "onnx-weights-missing",
        r"Failed to open file|Failed to read weights|external data",
        "the weights beside the ONNX file cannot be read",
        "model.onnx.data in the folder of model.onnx",
        "export again: {rebuild} --force",
    ),
    ErrorCase(
        "onnx-types",
        r"must have (?:the )?same (?:data )?types?|types? mismatch|type mismatch|incompatible types"
        r"|elementwise inputs must",
        "the graph mixes types where TensorRT needs one",
        "a Cast in the graph wherever types meet: strongly typed networks insert none",
        "build with other passes or another opset, or report the node",
    ),
    ErrorCase(
        "onnx-operator",
        r"No importer registered|no importer|UNSUPPORTED_NODE|unsupported (?:operator|node|opset)|In function import"
        r"|In node .*\(import",
        "TensorRT's parser does not know an operator of the graph, or not in this form",
        "operators of opset 20 that TensorRT imports",
        "build with opset: 20 in the config, or a newer TensorRT",
    ),
    ErrorCase(
        "profile-missing",
        r"optimization profile is missing values|has dynamic (?:or shape )?inputs, but no optimization profile",
        "an input that varies has no range",
        "every input with a dynamic size in each profile",
        'give every input that varies a range: --profile "B=1:1:4,H=512,W=512"',
    ),
    ErrorCase(
        "profile-inconsistent",
        r"k(?:MIN|OPT|MAX) values (?:for|are|in)[^\n]*(?:violate|self-consistent)|values are not self-consistent"
        r"|is inconsistent with other shapes|violate shape constraints|does not match network definition",
        "the sizes of a profile do not go together",
        "one batch for all inputs, and sizes that the U-Net can halve",
        "choose sizes that are multiples of 64 pixels",
    ),
    ErrorCase(
        "outside-profile",
        r"satisfyProfile|does not satisfy any optimization profile|Supplied binding dimension|exceed min ~ max range",
        "the size is outside what the engine was built for",
        "a size within one of its profiles",
        'add the size: {rebuild} --profile "..."',
        ShapeError,
    ),
    ErrorCase(
        "build-no-kernel",
        r"Could not find any implementation for node|Error Code 10|no valid tactic|mha_fusion",
        "TensorRT finds no kernel for a part of the graph",
        "a kernel for every layer within memory and profile",
        "in this order: remove workspace_mib and free the GPU; optimization_level 4 or 2; a narrower profile; another "
        "opset; aux_streams: 0; the next patch release of TensorRT",
    ),
    ErrorCase(
        "build-type-flag",
        r"kFP16|kINT8|kBF16|kFP8|[Ss]trongly ?[Tt]yped.*(?:flag|precision)",
        "a precision flag was set for a strongly typed network",
        "types in the graph and none in the builder",
        _REPORT,
    ),
    ErrorCase(
        "onnx-parse",
        r"Network must have at least one output|Failed to parse|ModelImporter|onnxOpImporters|Assertion failed",
        "TensorRT's parser refuses the graph",
        "an ONNX file that its parser reads to the end",
        "export again with opset: 20 in the config, or report the node",
    ),
    ErrorCase(
        "refit-refused",
        r"cannot be refitted|Failed to refit|refit",
        "weights of the engine cannot be replaced",
        "a refittable engine, and all weights of a fused kernel together with their types and sizes",
        "build with options: {{refit: all}}",
    ),
    ErrorCase(
        "engine-address",
        r"Address is not set|[Nn]ullptr.*(?:address|binding)|setTensorAddress",
        "a tensor of the engine has no address",
        "every input and output bound",
        _REPORT,
    ),
    ErrorCase(
        "profile-taken",
        r"has been chosen by another IExecutionContext|mOptimizationProfile >= 0|set optimization profile",
        "the engine's profile is not chosen, or not free",
        "a separate context for each thread",
        _REPORT,
    ),
    ErrorCase(
        "engine-shapes",
        r"Not all shapes are specified|infer_shapes error|allInputDimensionsSpecified",
        "a size of the engine's inputs is not set",
        "sizes of all inputs",
        _REPORT,
    ),
    ErrorCase(
        "engine-device-memory",
        r"[Dd]evice ?memory.*(?:null|not set|insufficient|size)|setDeviceMemory",
        "the engine has no memory for its activations",
        "a block as large as device_memory_size_v2",
        _REPORT,
    ),
    ErrorCase(
        "gpu-fault",
        r"illegal memory access|misaligned address|unspecified launch failure|device-side assert|CUDA error"
        r"|Cuda Runtime",
        "the GPU reported a fault while the engine ran",
        "a run without faults",
        "start the process again, its CUDA context is lost; if it comes again, try {{cuda_graphs: 0}} and report it",
    ),
)


@dataclass(frozen=True)
class ErrorContext:
    """How errors name an engine: its component or file, and the command that builds it again."""

    name: str
    rebuild: str

    def from_log(self, lines: Sequence[str], fallback: SdtrtError) -> SdtrtError:
        """The error of the first case that logged lines match; `fallback`, with the last lines, when none does."""
        matched = match(lines)
        if matched is None:
            return type(fallback)(
                fallback.message,
                slug=fallback.slug,
                received=" / ".join(_shorten(line) for line in lines[-3:]) or fallback.received,
                expected=fallback.expected,
                hint=fallback.hint,
            )
        case, line = matched
        return (case.error or type(fallback))(
            f"{self.name}: {case.message}",
            slug=case.slug,
            received=_shorten(line),
            expected=case.expected,
            hint=case.hint.format(rebuild=self.rebuild),
        )


def match(lines: Sequence[str]) -> tuple[ErrorCase, str] | None:
    """The first case of the table that matches one of the lines, and that line."""
    for case in CASES:
        for line in lines:
            if re.search(case.pattern, line):
                return case, line
    return None


def _shorten(line: str) -> str:
    """One line of at most 400 characters; parser errors start with the file of NVIDIA's source, so both ends stay."""
    text = " ".join(line.split())
    return text if len(text) <= 400 else f"{text[:200]} ... {text[-190:]}"
