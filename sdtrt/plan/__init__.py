"""The description of an engine: its layers, the kinds of their operators, their modules, and one timed image."""
