"""PyTorch's compiler ahead of time, for CUDA and the CPU."""

from sdtrt.engines.backends.inductor.engine import BACKEND

__all__ = ["BACKEND"]
