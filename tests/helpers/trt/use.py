"""Put the double in TensorRT's place: in this process, and in those that it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trt import bindings

DOUBLE = Path(__file__).parent / "double"
API = "TENSORRT_DOUBLE_API"


@contextmanager
def tensorrt(release: str, cache: Path) -> Iterator[None]:
    """Make `import tensorrt` give the double of `release`; raises bindings.Unreachable."""
    from trt.cuda import CpuCuda

    from sdtrt.engines.backends.tensorrt import cuda

    described = bindings.declarations(release, cache)
    # The timing cache goes to the user's cache folder, which is none of a test's business.
    variables = {API: str(described), "XDG_CACHE_HOME": str(cache / "user")}
    before = {name: os.environ.get(name) for name in variables}, sys.path[:], cuda.runtime
    forget()
    os.environ.update(variables)
    sys.path.insert(0, str(DOUBLE))
    cuda.runtime = CpuCuda()
    try:
        yield
    finally:
        forget()
        sys.path[:], cuda.runtime = before[1], before[2]
        for name, value in before[0].items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def forget() -> None:
    """Unload the double, so that the next import reads another release."""
    for name in [n for n in sys.modules if n == "tensorrt" or n.startswith("tensorrt.")]:
        del sys.modules[name]
