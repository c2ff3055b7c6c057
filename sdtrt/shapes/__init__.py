"""Shapes stated once: tensor specs and size profiles, and what follows from them."""
