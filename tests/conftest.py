"""Fixtures: tiny pipelines of each family and bundles built from them, once per session."""

import os
import shutil
from pathlib import Path

import pytest

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from sdtrt import builder, demo
from sdtrt.store import Bundle

FAMILIES = demo.FAMILIES
# sd1 has dynamic sizes in steps of 32; the others vary the batch only, which exports in half the time.
PROFILES = {
    "sd1": "B=1:1:4,H=64:128:192,W=64:128:192",
    "sd2": "B=1:1:2,H=128,W=128",
    "sdxl": "B=1:1:2,H=128,W=128",
}


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Where models and bundles lie; set SDTRT_TEST_CACHE to keep them between runs while working on tests."""
    kept = os.environ.get("SDTRT_TEST_CACHE")
    return Path(kept) if kept else tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def models(cache):
    """{family: folder of a tiny random-weight pipeline}, narrower than the demo's."""
    return {family: demo.make(cache / "models" / family, family, width=32) for family in FAMILIES}


@pytest.fixture(scope="session")
def bundles(cache, models):
    """get(family, backend) builds a bundle when first asked for and returns it opened."""
    made = {}

    def get(family: str = "sd1", backend: str = "onnxruntime") -> Bundle:
        if (family, backend) not in made:
            out = cache / "bundles" / f"{family}-{backend}"
            made[family, backend] = builder.build(
                models[family], out, backend=backend, profiles=[PROFILES[family]], profile_runs=2
            )
        return made[family, backend]

    return get


@pytest.fixture
def bundle_copy(bundles, tmp_path):
    """A bundle that a test may damage."""

    def copy(family: str = "sd1", backend: str = "fake") -> Path:
        return shutil.copytree(bundles(family, backend).path, tmp_path / "bundle")

    return copy
