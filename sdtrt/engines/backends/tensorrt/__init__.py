"""TensorRT 10.12 to 11."""

from sdtrt.engines.backends.tensorrt.engine import BACKEND

__all__ = ["BACKEND"]
