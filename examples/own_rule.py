"""A rule of your own, from your own folder: `python own_rule.py ENGINE [FOLDER]` prints what it finds in an engine.

The folder of a registry is a list of folders: another one that is added holds extensions as well.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sdtrt import analysis
from sdtrt.analysis import rules


def main(engine: str, folder: str = str(Path(__file__).parent / "rules")) -> None:
    """Analyze an engine with the rules of sdtrt and those in `folder`."""
    rules.__path__.append(folder)  # before the first analysis of the process
    mine = {path.stem for path in Path(folder).glob("*.py")}
    for finding in analysis.load(engine).findings:
        if finding.rule in mine:
            cost = "unknown cost" if finding.cost_ms is None else f"{finding.cost_ms:.3f} ms in one run"
            print(f"{finding.component}: {finding.title}: {finding.message} ({cost})")


if __name__ == "__main__":
    main(*sys.argv[1:])
