"""Kernels and their hardware counters: ranking, roofline, speed of light, stalls, one kernel inspected."""
