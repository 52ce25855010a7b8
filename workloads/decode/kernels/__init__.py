"""Triton and Gluon kernels of decode attention; no torch."""
