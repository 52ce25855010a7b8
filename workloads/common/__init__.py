"""What all workloads share: ceilings, timing, tuning, nvcc."""
