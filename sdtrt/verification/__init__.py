"""Engines against eager PyTorch, and the search for layers that must compute in float32."""
