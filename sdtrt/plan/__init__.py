"""An engine described: its layers, the kinds of their operators, the modules they come from, one timed image."""
