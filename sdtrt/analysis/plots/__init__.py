"""One file per plot, found by its name: each has a `TITLE`, a `CAPTION` and `draw(frame, plans)`."""
