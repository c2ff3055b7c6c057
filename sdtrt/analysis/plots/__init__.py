"""One file per plot, found by its name.

Each has a `TITLE`, a `CAPTION`, the `SECTION` it belongs to, its `ORDER` there, and `draw(analysis)`. A plot that shows
all engines side by side says `SCOPE = "all"`, the others are drawn for each engine on its own; one that needs the whole
width of a page says `WIDE = True`.
"""
