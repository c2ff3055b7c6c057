"""Checks of engines against eager PyTorch, and the search for nodes that must compute in float32."""
