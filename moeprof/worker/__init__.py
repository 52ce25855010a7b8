"""The process that runs one variant: built, proven, timed, or run under ranges for a profiler."""
