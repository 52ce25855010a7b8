"""This machine: its tools, its GPUs, its load, and what it reaches at best."""
