"""Explain engines: the same arguments as `sdtrt analyze`."""

from __future__ import annotations

import sys

from sdtrt.cli import main

if __name__ == "__main__":
    main(["analyze", *sys.argv[1:]])
