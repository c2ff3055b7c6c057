"""`python -m sdtrt.cli`, the same as `sdtrt`."""

from sdtrt.cli import main

main()
