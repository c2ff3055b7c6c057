"""ONNX Runtime on the CPU, and on CUDA through its providers."""

from sdtrt.engines.backends.onnxruntime.engine import BACKEND

__all__ = ["BACKEND"]
