"""Verdicts and their statistics: intervals, A/A noise, rank tests, change points. Pure."""
