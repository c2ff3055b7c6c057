"""Real dumps of engines lie outside the repository: what reads them is skipped where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from locations import DUMPS


@pytest.fixture
def engine_dumps() -> Path:
    if not DUMPS.is_dir():
        pytest.skip("the real dumps are not here")
    return DUMPS
