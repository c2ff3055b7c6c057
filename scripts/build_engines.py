"""Build engines: the same arguments as `sdtrt build`."""

from __future__ import annotations

import sys

from sdtrt.cli import main

if __name__ == "__main__":
    main(["build", *sys.argv[1:]])
