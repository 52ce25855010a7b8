"""Run a workload or a program under the profilers that there are, and keep what they saw as a capture folder."""
