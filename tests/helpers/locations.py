"""Where the project lies, and the real dumps beside it, which may be absent."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DUMPS = ROOT.parent / "shared" / "data" / "engine-json"
