"""Optimization profiles from sizes, the choice among them, and the trtexec commands that say the same."""

import pytest
from locations import ROOT

from sdtrt import config, engines
from sdtrt.engines.backends.tensorrt.error_table import ErrorContext
from sdtrt.engines.backends.tensorrt.options import RUN_OPTIONS, TrtOptions
from sdtrt.engines.backends.tensorrt.profiling.trtexec_command import TrtexecCommand
from sdtrt.engines.backends.tensorrt.running import optimization_profiles
from sdtrt.errors import ConfigError, ShapeError
from sdtrt.models import unet
from sdtrt.shapes.spec import ShapeProfile

RECIPES = sorted((ROOT / "configs").glob("*_tensorrt_fp16.yaml"))
SD21 = {"in_channels": 4, "out_channels": 4, "cross_attention_dim": 1024, "block_out_channels": (320, 640, 1280, 1280)}
SPEC = unet.spec(SD21, "float16", 8, {}, 1024)


def profiles(*texts):
    return tuple(ShapeProfile.parse(t).with_defaults(ShapeProfile.parse("B=1,H=512,W=512,T=77")) for t in texts)


def test_the_recipe_of_sd21_is_the_profile_of_the_article():
    recipe = config.load(next(p for p in RECIPES if p.stem == "sd21_tensorrt_fp16"))
    options = TrtOptions(**recipe.options)
    (found,) = optimization_profiles.plan_profiles(SPEC, profiles(*recipe.profiles), options.guided_only)
    assert recipe.precision == "fp16"
    assert found["sample"] == ((2, 4, 64, 64), (2, 4, 64, 64), (32, 4, 64, 64))
    assert found["encoder_hidden_states"] == ((2, 77, 1024), (2, 77, 1024), (32, 77, 1024))


def test_the_families_have_a_recipe():
    named = [p.stem.partition("_")[0] for p in RECIPES]
    assert named == ["lcm", "sd15-controlnet", "sd15", "sd21", "sdxl-turbo", "sdxl"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipes_name_options_that_exist(path):
    recipe = config.load(path)
    assert recipe.backend == "tensorrt"
    TrtOptions(**recipe.options)


def test_without_guided_only_the_batch_starts_at_one():
    (found,) = optimization_profiles.plan_profiles(SPEC, profiles("B=1:1:4"), guided_only=False)
    assert [shape[0] for shape in found["timestep"]] == [1, 2, 8]


def test_equal_profiles_are_one():
    assert (
        len(optimization_profiles.plan_profiles(SPEC, profiles("B=1:1:4", "B=1:1:4", "B=4:8:8"), guided_only=False))
        == 2
    )


def test_each_profile_finds_its_place_among_those_of_the_plan():
    asked = profiles("B=1:1:4", "B=4:8:8", "B=1:1:4")
    assert optimization_profiles.plan_indices(SPEC, asked, guided_only=False) == (0, 1, 0)


UNET = ErrorContext("unet", "sdtrt build X")
RANGES = tuple({"x": ((low, 4), (low, 4), (high, 4))} for low, high in ((1, 2), (2, 8)))


@pytest.mark.parametrize(("batch", "expected"), [(1, 0), (2, 1), (8, 1)])
def test_the_nearest_profile_is_chosen(batch, expected):
    assert optimization_profiles.choose({"x": (batch, 4)}, RANGES, UNET) == expected


@pytest.mark.parametrize("shape", [(9, 4), (2, 5), (2, 4, 1)])
def test_shapes_outside_list_all_profiles(shape):
    with pytest.raises(ShapeError) as caught:
        optimization_profiles.choose({"x": shape}, RANGES, UNET)
    assert caught.value.slug == "outside-profile"
    assert caught.value.expected == "[0] x 1x4 to 2x4 or [1] x 2x4 to 8x4"
    assert "sdtrt build X --add-profile" in caught.value.hint


def trtexec(profiles, options, runs, major):
    command = TrtexecCommand(SPEC, profiles, TrtOptions(**options), major)
    return command.build(), command.run(runs)


ARTICLE = (
    "--minShapes=sample:2x4x64x64,timestep:2,encoder_hidden_states:2x77x1024",
    "--maxShapes=sample:32x4x64x64,timestep:32,encoder_hidden_states:32x77x1024",
)


@pytest.mark.parametrize("major", [10, 11])
def test_trtexec_builds_the_same_profile(major):
    build, run = trtexec(profiles("B=1:1:16"), {"guided_only": True}, 20, major)
    assert all(flag in build.split() for flag in ARTICLE)
    assert ("--stronglyTyped" in build.split()) == (major == 10)
    assert ("--useCudaGraph" in run.split()) == (major == 10)
    assert "--iterations=20" in run.split()
    assert all(line.endswith("\\") for line in build.splitlines()[:-1])


@pytest.mark.parametrize("flag", ["--fp16", "--int8", "--best", "--precisionConstraints"])
def test_trtexec_has_no_flag_that_11_removed(flag):
    commands = [c for major in (10, 11) for c in trtexec(profiles("B=1:1:4"), {}, 1, major)]
    assert not any(flag in command for command in commands)


def test_trtexec_repeats_the_shapes_for_several_profiles():
    build, run = trtexec(profiles("B=1", "B=2:4:8"), {}, 1, 11)
    flags = build.split()
    assert [f for f in flags if f.startswith("--profile=")] == ["--profile=0", "--profile=1"]
    assert sum(f.startswith("--optShapes=") for f in flags) == 2
    assert "--useProfile=0" in run.split()


def test_trtexec_names_no_input_that_is_constant_in_the_graph():
    build, run = trtexec(profiles("B=2"), {"guided_only": True}, 1, 11)
    assert "Shapes=" not in build
    assert "--shapes=" not in run


@pytest.mark.parametrize(
    ("option", "flag"),
    [
        ({"workspace_mib": 4096}, "--memPoolSize=workspace:4096"),
        ({"tiling": "moderate"}, "--tilingOptimizationLevel=2"),
        ({"aux_streams": 2}, "--maxAuxStreams=2"),
        ({"tf32": False}, "--noTF32"),
        ({"version_compatible": True}, "--versionCompatible"),
        ({"hardware_compatibility": "ampere_plus"}, "--hardwareCompatibilityLevel=ampere+"),
        ({"weight_streaming": True}, "--allowWeightStreaming"),
        ({"strip_plan": True}, "--stripWeights"),
        ({"refit": "all"}, "--refit"),
        ({"timing_cache": False}, "--noBuilderCache"),
        ({"optimization_level": 5}, "--builderOptimizationLevel=5"),
    ],
)
def test_options_are_flags_of_trtexec(option, flag):
    assert flag in trtexec(profiles("B=1:1:4"), option, 1, 10)[0].split()


@pytest.mark.parametrize(
    "options",
    [
        {"optimisation_level": 3},
        {"optimization_level": 6},
        {"tiling": "most"},
        {"weight_budget_mib": 100},
        {"strip_plan": True, "version_compatible": True},
        {"gpu": -1},
        {"refit": True},
    ],
    ids=str,
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ConfigError):
        engines.load("tensorrt").check_options(options)


def test_every_option_says_what_it_costs():
    assert all(len(f.description or "") > 20 for f in TrtOptions.model_fields.values())
    assert not RUN_OPTIONS - TrtOptions.model_fields.keys()
