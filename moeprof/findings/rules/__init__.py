"""The rules of ``moeprof.findings.find``, one a function, by what they are about."""
