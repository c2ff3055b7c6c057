"""A package runs code as soon as it is read: only one that is as it was built is. And it has all that it needs."""

import subprocess
import sys

import pytest

from sdtrt.bundle.bundle import Bundle
from sdtrt.engines.backends.inductor import package
from sdtrt.errors import BundleError
from sdtrt.pipelines import engine_loading

LOAD = """
import sys
from sdtrt.pipelines import engine_loading
from sdtrt.bundle.bundle import Bundle
engine_loading.load_engines(Bundle.open(sys.argv[1]))
"""


@pytest.mark.parametrize("pattern", ["*.step.inductor", "kernels/*.so", "engine.json"])
def test_a_changed_byte_is_found_before_any_package_is_opened(bundle_copy, monkeypatch, pattern):
    bundle = Bundle.open(bundle_copy("sd1", "inductor"))
    file = next(bundle.folder("unet").glob(pattern))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    opened = []
    monkeypatch.setattr(package, "load", lambda path: opened.append(path.parent.name))
    with pytest.raises(BundleError, match="sha256") as caught:
        engine_loading.load_engines(bundle)
    assert caught.value.slug == "file-damaged"
    assert "unet" not in opened


def test_loading_needs_no_compiler(bundles, tmp_path):
    """A fresh process whose compiler does nothing but fail, and whose cache is empty."""
    settings = {"CXX": "false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD, str(bundles("sd1", "inductor").path)],
        env=settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    assert not list(tmp_path.rglob("*.so"))
