"""The rules of ``moeprof.findings``, one a function, by what they are about."""
