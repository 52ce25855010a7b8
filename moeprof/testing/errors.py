"""What can go wrong around a capture, as pytest shows it: one line with the cure."""

from __future__ import annotations

from moeprof.errors import UsageError


class ProbeError(UsageError):
    """A capture cannot be made or asked; shown whole, since pytest prints only an exception's text."""

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message
