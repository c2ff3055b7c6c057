"""A package's launches: what they compute, and how long they take."""
