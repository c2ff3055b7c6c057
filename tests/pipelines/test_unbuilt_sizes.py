"""Activations at a size that was not built, from those that were recorded: a bound, and only where one follows."""

import pytest
from backends import usable

from sdtrt.builder import memory_estimate
from sdtrt.bundle.bundle import Bundle
from sdtrt.bundle.manifest import Memory, ProfileMemory
from sdtrt.engines import load as load_backend
from sdtrt.models import load as load_family
from sdtrt.pipelines import unbuilt_sizes
from sdtrt.shapes.spec import ShapeProfile

ONE, MORE = "B=1:1:8,H=64:128:192,W=64:128:192,T=77", "B=1,H=256,W=256,T=77"


def recorded(*figures):
    """Activations at the best and the largest size of profiles."""
    found = (ProfileMemory(profile=p, activation_opt_bytes=o, activation_max_bytes=m) for p, o, m in figures)
    return Memory(profiles=tuple(found))


def at(images=1, height=256, width=256, tokens=77):
    return {"B": images, "H": height, "W": width, "T": tokens}


def part(pixels, images=1):
    """Bytes of a graph with some tensors that grow with the pixels and attention that grows with their square."""
    return images * (1000 * pixels + pixels**2)


REAL = recorded((ONE, part(128**2), part(192**2, 8)))


@pytest.mark.parametrize("size", [at(), at(4, 256, 512), at(2, 64, 64)])
def test_outside_of_what_was_recorded_it_is_at_least_that(size):
    bound, found = unbuilt_sizes.estimate_activation_bytes(REAL, size)
    assert bound == "at least"
    assert found == pytest.approx(part(size["H"] * size["W"], size["B"]))


def test_between_two_recorded_sizes_it_is_at_most_that():
    wide = recorded((ONE, part(128**2), part(192**2, 8)), (MORE, part(256**2), part(256**2)))
    bound, found = unbuilt_sizes.estimate_activation_bytes(wide, at(3, 224, 224))
    assert (bound, found) == ("at most", pytest.approx(part(224**2, 3)))


def test_what_does_not_grow_with_the_pixels_counts_once():
    grows = recorded((MORE, 5_000_000, 5_000_000), (MORE.replace("256", "128"), 2_000_000, 2_000_000))
    # Three in four of the pixels of 256x256 take 3,000,000 bytes more, and the rest takes a million.
    assert unbuilt_sizes.estimate_activation_bytes(grows, at(2, 512, 256)) == ("at least", pytest.approx(2 * 9_000_000))
    assert unbuilt_sizes.estimate_activation_bytes(grows, at(2, 192, 256)) == ("at most", pytest.approx(2 * 4_000_000))


def test_at_a_recorded_area_only_the_batch_counts():
    assert unbuilt_sizes.estimate_activation_bytes(REAL, at(3, 128, 128)) == ("about", pytest.approx(part(128**2, 3)))


@pytest.mark.parametrize(("height", "factor"), [(512, 2), (128, 0.5)])
def test_a_single_area_says_of_the_others_what_is_in_proportion(height, factor):
    single = recorded((MORE, 5_000_000, 5_000_000))
    estimate = unbuilt_sizes.estimate_activation_bytes(single, at(1, height))
    assert estimate == ("about", pytest.approx(factor * 5_000_000))


@pytest.mark.parametrize(
    ("known", "size"),
    [(None, at()), (recorded((ONE, None, None)), at()), (REAL, at(tokens=154)), (recorded(), at())],
    ids=["no record", "no figures", "another number of tokens", "no profiles"],
)
def test_what_does_not_follow_is_unknown(known, size):
    assert unbuilt_sizes.estimate_activation_bytes(known, size) is None


@pytest.mark.parametrize("name", ["onnxruntime", "tensorrt"])
def test_a_real_graph_takes_what_was_said(bundles, cache, name):
    """At the double of the largest height: attention that is written out, for TensorRT, grows with the square."""
    with usable(name, cache):
        bundle = bundles("sd1", name)
    manifest = bundle.manifest
    spec = load_family(manifest.family).components(bundle.pipeline_folder, manifest.precision)["unet"]
    graph = next(bundle.folder("unet").rglob("*.onnx"))
    (found,) = memory_estimate.of_graph(graph, spec, manifest.shape_profiles)
    (asked,) = memory_estimate.of_graph(graph, spec, [ShapeProfile.parse("B=2,H=384,W=192,T=77")])
    bound, estimate = unbuilt_sizes.estimate_activation_bytes(Memory(profiles=(found,)), at(2, 384, 192))
    assert bound == "at least"
    assert 0.9 * asked.activation_opt_bytes < estimate <= asked.activation_opt_bytes * 1.001


def test_the_error_says_it_of_every_part_that_has_an_image_size(bundles):
    bundle = bundles("sd1", "fake")
    known = {n: c.model_copy(update={"memory": REAL}) for n, c in bundle.manifest.components.items()}
    known["vae_encoder"] = known["vae_encoder"].model_copy(update={"memory": None})
    bundle = Bundle(bundle.path, bundle.manifest.model_copy(update={"components": known}))
    specs = load_family("sd").components(bundle.pipeline_folder, bundle.manifest.precision)
    text = unbuilt_sizes.describe_add_profile(bundle, specs, load_backend("fake"), "B=1,H=256,W=256")
    assert (
        "activations at this size: unet at least 4,361 MB, vae_decoder at least 4,361 MB, vae_encoder unknown" in text
    )
    kept = unbuilt_sizes.describe_add_profile(bundle, specs, load_backend("onnxruntime"), "B=1,H=160,W=160")
    assert "no engine is rebuilt" in kept
    assert "activations at this size: unet at most 681 MB" in kept
