"""Explain engines: the same arguments as `sdtrt analyze`."""

import sys

from sdtrt.cli import main

if __name__ == "__main__":
    main(["analyze", *sys.argv[1:]])
