"""ONNX graphs rewritten: passes, and nodes that compute in float32."""
