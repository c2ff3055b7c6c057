"""Every backend in turn; TensorRT by its double."""

import pytest
from backends import usable

from sdtrt import engines


@pytest.fixture(scope="module", params=engines.names())
def backend(request, cache):
    with usable(request.param, cache) as found:
        yield found
