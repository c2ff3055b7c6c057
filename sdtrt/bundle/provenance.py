"""Origin of a bundle that was not built here: a small file that `sdtrt pull` writes beside the manifest.

Engines of some backends are native code, which can do anything on the machine. Such a bundle is loaded only when the
user trusts its origin.
"""

from sdtrt.bundle.bundle import Bundle
from sdtrt.errors import BundleError
from sdtrt.system.json_records import Record, read

FORMAT_VERSION = 1
FILE = "origin.json"


class Origin(Record):
    """The repository on the hub, and the commit that was pulled."""

    format: int = FORMAT_VERSION
    repo: str
    commit: str
    pulled: str


def read_origin(bundle: Bundle) -> Origin | None:
    """The origin of a bundle, None for one that was built here; BundleError when its file is damaged."""
    path = bundle.path / FILE
    return read(path, Origin, FORMAT_VERSION, BundleError, "pull the bundle again") if path.exists() else None
