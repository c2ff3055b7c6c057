"""Every backend in turn; TensorRT by its double."""

from contextlib import ExitStack

import pytest
from trt import use
from trt.bindings import NEWEST, Unreachable

from sdtrt import engines


@pytest.fixture(scope="module", params=engines.names())
def backend(request, cache):
    with ExitStack() as stack:
        if request.param == "tensorrt":
            try:
                stack.enter_context(use.tensorrt(NEWEST, cache))  # the double: see tests/trt
            except Unreachable as exc:
                pytest.skip(str(exc))
        found = engines.load(request.param)
        if (why := found.unavailable()) is not None:
            pytest.skip(f"{request.param}: {why.reason}")
        yield found
