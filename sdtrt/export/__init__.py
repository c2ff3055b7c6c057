"""From a checkpoint's module to ONNX, and the Q/DQ nodes of quantized layers."""
