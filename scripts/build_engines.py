"""Build engines: the same arguments as `sdtrt build`."""

import sys

from sdtrt.cli import main

if __name__ == "__main__":
    main(["build", *sys.argv[1:]])
