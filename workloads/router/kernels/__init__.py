"""Triton and Gluon kernels of the router; no torch."""
