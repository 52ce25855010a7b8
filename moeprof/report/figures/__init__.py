"""The figures of a report, each beside a table with the same numbers."""
