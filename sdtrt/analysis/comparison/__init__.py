"""Engines side by side: aligned layers, noise between runs, and a gate against slowdowns."""
