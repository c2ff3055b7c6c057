"""The graph of an engine: as data for the report, as SVG, and as a file for Netron."""
