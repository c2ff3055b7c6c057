"""From an ONNX file to a plan file, in a process of its own."""
