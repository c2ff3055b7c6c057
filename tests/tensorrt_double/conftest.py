"""NVIDIA's declarations of each release, and the double made from them."""

import pytest
from trt import bindings, use

RELEASES = tuple(bindings.RELEASES)
# The double acts alike within a major version; its names are compared in every release.
MAJORS = RELEASES[-2:]


@pytest.fixture(params=RELEASES)
def release(request, apis):
    """Each release in turn."""
    return request.param


@pytest.fixture(params=MAJORS)
def trt(request, apis, cache):
    """The double of both major versions in turn, as the module `tensorrt`."""
    with use.tensorrt(request.param, cache):
        import tensorrt

        yield tensorrt


@pytest.fixture
def small(trt, tmp_path):
    """A session of the small network."""
    from trt.small import Session

    return Session(trt, tmp_path)
