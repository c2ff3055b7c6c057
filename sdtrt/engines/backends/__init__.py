"""Engine backends: one file or folder each, listed from here; each has a `BACKEND`."""
