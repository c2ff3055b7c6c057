"""Passes over traced graphs, before Inductor compiles them."""
