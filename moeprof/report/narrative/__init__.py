"""The sentences of a report; every number in them is also in one of its tables."""
