"""What `engines/inductor.py` is made of: capture, graph passes, packages of compiled code, CUDA graphs, profile."""
