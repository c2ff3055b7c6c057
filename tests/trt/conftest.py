"""NVIDIA's declarations of each release, and the double made from them."""

import pytest
from trt import bindings, use

RELEASES = tuple(bindings.RELEASES)
# The double acts alike within a major version; its names are compared in every release.
MAJORS = RELEASES[-2:]


@pytest.fixture(scope="session")
def apis(cache):
    """{release: what it declares}; the tests are skipped where the wheels cannot be fetched."""
    try:
        return {release: bindings.Api(bindings.declarations(release, cache)) for release in RELEASES}
    except bindings.Unreachable as exc:
        pytest.skip(str(exc))


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
