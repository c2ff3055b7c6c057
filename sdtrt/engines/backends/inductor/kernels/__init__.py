"""Triton kernels that traced graphs call."""
