"""Fixtures: tiny pipelines of each family and bundles built from them, once per session."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import shared_exports
import tiny_random

from sdtrt import builder, demo, engines
from sdtrt.store import Bundle

FAMILIES = tiny_random.FAMILIES
# sd1 has dynamic sizes in steps of 32; the others vary the batch only, which exports in half the time.
PROFILES = {
    "sd1": "B=1:1:4,H=64:128:192,W=64:128:192",
    "sd2": "B=1:1:2,H=128,W=128",
    "sdxl": "B=1:1:2,H=128,W=128",
}


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
        return {"sd1": demo.copy(cache / "models" / "sd1"), **made}


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
        # Plans of TensorRT are of one release; the others have one version here.
        key = (family, backend, engines.load(backend).version() if backend == "tensorrt" else "")
        if key not in made:
            name = "-".join(filter(None, key))
            # Another worker may be building it: what it made is then found and used.
            with FileLock(cache / f"{name}.lock"), shared_exports.shared(cache / "exports"):
                made[key] = builder.build(
                    models[family],
                    cache / "bundles" / name,
                    backend=backend,
                    profiles=[PROFILES[family]],
                    profile_runs=2,
                    # A test reads the graph that the engine was built from.
                    options={"keep_onnx": True} if backend == "tensorrt" else {},
                )
        return made[key]

    return get


@pytest.fixture
def bundle_copy(bundles, tmp_path):
    """A bundle that a test may damage."""

    def copy(family: str = "sd1", backend: str = "fake") -> Path:
        return shutil.copytree(bundles(family, backend).path, tmp_path / "bundle")

    return copy
