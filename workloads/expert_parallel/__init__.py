"""A mixture-of-experts layer whose experts are on several GPUs."""
