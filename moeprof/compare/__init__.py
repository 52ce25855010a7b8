"""Two sides, numbers only: variants, captures, traces, kernels, counters, steps."""
