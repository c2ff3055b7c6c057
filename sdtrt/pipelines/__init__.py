"""Engines as ordinary diffusers pipelines: load, accelerate, and what diffusers asks of modules."""
