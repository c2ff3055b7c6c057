"""Every failure that TensorRT only logs is one typed error with what was received, what was expected, what to do."""

import pytest

from sdtrt.engines.backends.tensorrt import error_table
from sdtrt.errors import BackendUnavailable, BuildError, EngineError, ShapeError

BUILD, RUN = BuildError("building failed", slug="build"), EngineError("running failed", slug="engine-failed")
UNET = error_table.ErrorContext("unet", "sdtrt build X")

# What TensorRT 8 to 11 was seen to log, by the error it becomes.
LOGGED = [
    (
        RUN,
        "The engine plan file is not compatible with this version of TensorRT, expecting library version 8.0.0 got "
        "8.0.1, please rebuild.",
        EngineError,
        "plan-version",
    ),
    (
        RUN,
        "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion header.magicTag == "
        "kEXPECTED_MAGIC_TAG failed.Trying to load an engine created with incompatible serialization version (1 != "
        "1953657958). Check that the engine was not created using safety runtime, same OS was used and version "
        "compatibility parameters were set accordingly.)",
        EngineError,
        "plan-version",
    ),
    (
        RUN,
        "Error Code 1: Serialization (Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed.Version "
        "tag does not match. Note: Current Version: 236, Serialized Engine Version: 239)",
        EngineError,
        "plan-version",
    ),
    (
        RUN,
        "The engine plan file is generated on an incompatible device, expecting compute 8.6 got compute 7.5, please "
        "rebuild.",
        EngineError,
        "plan-gpu",
    ),
    (
        RUN,
        "Error Code 1: Serialization (Serialization assertion magicTagRead == kMAGIC_TAG failed.Magic tag does not "
        "match)",
        EngineError,
        "engine-damaged",
    ),
    (RUN, "[ERROR] Failed to open cuda driver.", BackendUnavailable, "no-driver"),
    (BUILD, "CUDA initialization failure with error: 35", BackendUnavailable, "no-driver"),
    (
        BUILD,
        "Skipping tactic 0x0 due to Myelin error: autotuning: CUDA error 2 allocating 6443238909-byte buffer: out of "
        "memory",
        BuildError,
        "gpu-memory",
    ),
    (RUN, "Error Code 2: OutOfMemory (Requested size was 4294967296 bytes.)", EngineError, "gpu-memory"),
    (
        BUILD,
        "Error Code 10: Internal Error (Could not find any implementation for node {ForeignNode[a...b]})",
        BuildError,
        "build-no-kernel",
    ),
    (
        BUILD,
        "[cutlass/mha] mha_fusion.cpp:344: DCHECK(fc1_ && fc2_ && softmax_) failed",
        BuildError,
        "build-no-kernel",
    ),
    (
        BUILD,
        "Error Code 3: API Usage Error (Parameter check failed, condition: !config.getFlag(BuilderFlag::kFP16))",
        BuildError,
        "build-type-flag",
    ),
    (BUILD, "Network must have at least one output", BuildError, "onnx-parse"),
    (BUILD, "Failed to open file: unet.conv_in.weight", BuildError, "onnx-weights-missing"),
    (
        BUILD,
        "ModelImporter.cpp:149: ERROR: onnxOpImporters.cpp:191 In function importAttention: [6] Assertion failed: "
        "node.output().size() == 1: TensorRT only supports Attention nodes with one output.",
        BuildError,
        "onnx-operator",
    ),
    (BUILD, "No importer registered for op: FancyOp", BuildError, "onnx-operator"),
    (
        BUILD,
        "IElementWiseLayer /time/Add: elementwise inputs must have same types, got Half and Float",
        BuildError,
        "onnx-types",
    ),
    (
        BUILD,
        "[network.cpp::validate::3584] Error Code 4: Internal Error (sample: optimization profile is missing values "
        "for shape input)",
        BuildError,
        "profile-missing",
    ),
    (
        BUILD,
        "kOPT values for profile 0 violate shape constraints: broadcast with incompatible dimensions",
        BuildError,
        "profile-inconsistent",
    ),
    (
        BUILD,
        "Error Code 4: Internal Error (sample: for dimension number 1 in profile 0 does not match network definition "
        "(got min=5, opt=5, max=5), expected min=opt=max=4).)",
        BuildError,
        "profile-inconsistent",
    ),
    (BUILD, "Profile kMIN values are not self-consistent: IShuffleLayer", BuildError, "profile-inconsistent"),
    (BUILD, "Shape provided for min is inconsistent with other shapes.", BuildError, "profile-inconsistent"),
    (
        RUN,
        "IExecutionContext::setInputShape: Error Code 3: API Usage Error (Parameter check failed, condition: "
        "satisfyProfile. Runtime dimension does not satisfy any optimization profile.)",
        ShapeError,
        "outside-profile",
    ),
    (
        RUN,
        "Supplied binding dimension [1,3,576,768] for bindings[0] exceed min ~ max range at index 2, maximum dimension "
        "in profile is 800",
        ShapeError,
        "outside-profile",
    ),
    (
        RUN,
        "Address is not set for input tensor sample. Call setInputTensorAddress or setTensorAddress before "
        "enqueue/execute",
        EngineError,
        "engine-address",
    ),
    (
        RUN,
        "Profile 0 has been chosen by another IExecutionContext. Use another profileIndex or destroy the "
        "IExecutionContext that use this profile.",
        EngineError,
        "profile-taken",
    ),
    (
        RUN,
        "Error Code 3: API Usage Error (Parameter check failed, condition: mOptimizationProfile >= 0 && "
        "mOptimizationProfile < mEngine.getNbOptimizationProfiles())",
        EngineError,
        "profile-taken",
    ),
    (RUN, "Error in set optimization profile async.", EngineError, "profile-taken"),
    (RUN, "Not all shapes are specified", EngineError, "engine-shapes"),
    (RUN, "infer_shapes error code: 3", EngineError, "engine-shapes"),
    (RUN, "conv1.weight: The weights cannot be refitted", EngineError, "refit-refused"),
    (RUN, "Failed to refit all the weights.", EngineError, "refit-refused"),
    (RUN, "Cuda Runtime (In isStreamCapturing at cudaDriverHelpers.cpp:233)", EngineError, "gpu-fault"),
    (RUN, "CUDA error 700: an illegal memory access was encountered", EngineError, "gpu-fault"),
]


@pytest.mark.parametrize(("otherwise", "line", "error", "slug"), LOGGED, ids=lambda v: str(v)[:40])
def test_a_logged_message_becomes_one_error(otherwise, line, error, slug):
    found = UNET.from_log(["[I] something before", line], otherwise)
    assert type(found) is error
    assert found.slug == slug
    assert line[:80] in found.received
    assert found.expected
    assert found.hint
    assert "{" not in found.hint.replace("{workspace_mib: 4096}", "").replace("{cuda_graphs: 0}", "").replace(
        "{refit: all}", ""
    )


def test_every_case_of_the_table_is_reached_by_a_message_that_was_seen():
    reached = {slug for *_, slug in LOGGED}
    assert {case.slug for case in error_table.CASES} - reached == {"plan-host-code", "engine-device-memory"}
    assert reached <= {case.slug for case in error_table.CASES}


def test_a_message_that_is_not_in_the_table_keeps_its_words_and_the_error_of_the_situation():
    found = UNET.from_log(["first", "unheard of"], RUN)
    assert (type(found), found.slug, found.received) == (EngineError, "engine-failed", "first / unheard of")


def test_the_cause_wins_over_what_follows_from_it():
    lines = ["Network must have at least one output", "Failed to open file: conv.weight"]
    assert UNET.from_log(lines, BUILD).slug == "onnx-weights-missing"


def test_a_very_long_message_is_shortened_in_the_middle():
    found = UNET.from_log(["Could not find any implementation for node " + "x" * 9000], BUILD)
    assert len(found.received) < 500
