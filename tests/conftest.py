"""Fixtures: tiny pipelines of each family and bundles built from them, once per session."""

import gc
import importlib
import os
import shutil
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Else Inductor compiles a program for each of the CPU's vector units, to see whether it runs: eight seconds.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")

import shared_exports
import small_checkpoint
import tiny_random
from trt import bindings

from sdtrt import engines, tiny_model
from sdtrt.builder import build
from sdtrt.bundle.bundle import Bundle

FAMILIES = tiny_random.FAMILIES
PROFILES = tiny_random.PROFILES
# Inductor's C++ takes a second for each kernel: it gets the smallest model that has everything, at one size.
COMPILED = {
    "profiles": ["B=1:1:2,H=64,W=64"],
    "components": ["text_encoder", "unet"],
    "options": {"device": "cpu", "rows": [4]},
}
# The longest files start first, so that no worker ends with one; the first builds the bundles that most others share,
# and the next three make their own exports meanwhile, so that nobody waits for it.
LONGEST = (
    *(
        "contract/test_engines.py",
        "export/test_onnx_export.py",
        "engines/tensorrt/test_quantized.py",
        "quantization/test_quantized_build.py",
        "builder/test_build.py",
    ),
    *(
        "engines/tensorrt/test_end_to_end.py",
        "pipelines/test_load.py",
        "engines/tensorrt/test_refit.py",
        "cli/test_commands.py",
        "engines/tensorrt/test_build.py",
    ),
    *(
        "contract/test_lora.py",
        "pipelines/test_engine_controlnet.py",
        "contract/test_threads.py",
        "contract/test_sizes.py",
    ),
    *(
        "verification/test_check_in_build.py",
        "bench/test_bench.py",
        "engines/tensorrt/test_session.py",
        "builder/test_kill.py",
    ),
    *("pipelines/test_few_steps.py", "pipelines/test_inpaint.py", "readers/test_hostile_files.py"),
)
# An export makes millions of objects that live to its end: looking through them less often saves an eighth of its time.
gc.set_threshold(20_000, 20, 10)


def pytest_collection_modifyitems(items):
    """Order the files; xdist keeps that order with --no-loadscope-reorder."""
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def settle():
    """Collect garbage, and never look again through what is left.

    A build collects after each component; with torch, diffusers and what exports leave behind on the heap, that took a
    second or two each time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def settled():
    """Before each file, as more has been imported by then."""
    settle()


def pytest_sessionfinish():
    """What is imported after the tests may ask who refers to an object, as hypothesis does."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Tests neither read nor change what sdtrt keeps for the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("user-cache")))
        yield


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Where models and bundles lie, for all workers of this run; SDTRT_TEST_CACHE keeps them between runs."""
    kept = os.environ.get("SDTRT_TEST_CACHE")
    base = tmp_path_factory.getbasetemp()
    folder = Path(kept) if kept else (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def models(cache):
    """{family: folder}: the embedded trained model as sd1, random weights for the families that it does not cover."""
    with FileLock(cache / "models.lock"):
        made = {family: tiny_random.make(cache / "models" / family, family, width=32) for family in FAMILIES[1:]}
        made = {"sd1": tiny_model.copy(cache / "models" / "sd1"), **made}
    importlib.import_module("diffusers.pipelines.stable_diffusion")  # builds do, and now it is settled
    settle()
    return made


@pytest.fixture(scope="module")
def one_thread():
    """Threads of torch: more would only wait for each other on tensors this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def retrained(models, tmp_path):
    """A copy of the sd1 model whose U-Net has slightly other weights."""
    folder = shutil.copytree(models["sd1"], tmp_path / "retrained")
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: weight * 1.01 for name, weight in load_file(path).items()}, path)
    return folder


@pytest.fixture(scope="session")
def bundles(cache, models):
    """get(family, backend) builds a bundle when first asked for and returns it opened."""
    made = {}

    def get(family: str = "sd1", backend: str = "onnxruntime") -> Bundle:
        # Plans of TensorRT are of one release; the others have one version here. Compiled code is of one model only.
        key = (family, backend, engines.load(backend).version() if backend == "tensorrt" else "")
        if key not in made:
            name = "-".join(filter(None, key))
            # Another worker may be building it: what it made is then found and used.
            with FileLock(cache / f"{name}.lock"), shared_exports.shared(cache / "exports"):
                model = models[family]
                if backend == "inductor":
                    model = small_checkpoint.make(models["sd2"], cache / "models" / "one-level", levels=1)
                # A test reads the graph that a TensorRT engine was built from.
                settings = {
                    "profiles": [PROFILES[family]],
                    "options": {"keep_onnx": True} if backend == "tensorrt" else {},
                }
                settings |= COMPILED if backend == "inductor" else {}
                made[key] = build.build(model, cache / "bundles" / name, backend=backend, profile_runs=2, **settings)
                settle()
        return made[key]

    return get


@pytest.fixture
def bundle_copy(bundles, tmp_path):
    """A bundle that a test may damage."""

    def copy(family: str = "sd1", backend: str = "fake") -> Path:
        return shutil.copytree(bundles(family, backend).path, tmp_path / "bundle")

    return copy


@pytest.fixture(scope="session")
def apis(cache):
    """{release: what it declares}; the tests are skipped where the wheels cannot be fetched."""
    try:
        return {release: bindings.Api(bindings.declarations(release, cache)) for release in bindings.RELEASES}
    except bindings.Unreachable as exc:
        pytest.skip(str(exc))
