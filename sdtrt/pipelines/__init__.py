"""Engines as ordinary diffusers pipelines: load, accelerate, and the modules that diffusers calls."""
