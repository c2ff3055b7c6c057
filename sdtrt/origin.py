"""Where a bundle came from, when it was not built here: a small file that `sdtrt pull` writes beside the manifest.

Engines of some backends are native code, which does what its author wants. Such a bundle is loaded only when the user
says that its origin is trusted.
"""

from __future__ import annotations

from sdtrt.engines import Backend
from sdtrt.errors import BundleError
from sdtrt.store import Bundle
from sdtrt.system.json_records import Record, read

FORMAT_VERSION = 1
FILE = "origin.json"


class Origin(Record):
    """The repository on the hub, and the commit that was pulled."""

    format: int = FORMAT_VERSION
    repo: str
    commit: str
    pulled: str


def of(bundle: Bundle) -> Origin | None:
    """The origin of a bundle, None for one that was built here; BundleError when its file is damaged."""
    path = bundle.path / FILE
    return read(path, Origin, FORMAT_VERSION, BundleError, "pull the bundle again") if path.exists() else None


def check(bundle: Bundle, backend: Backend, trust: bool) -> None:
    """BundleError for native code from elsewhere that nobody vouches for."""
    origin = of(bundle) if backend.native_code and not trust else None
    if origin is not None:
        raise BundleError(
            f"engines of {backend.name} are native code, and these were not built here",
            slug="bundle-untrusted",
            received=f"{origin.repo} at {origin.commit[:12]}",
            expected="a bundle that was built here, or one whose author you trust",
            hint="if you do: --trust, or trust=True in Python",
        )
