"""The moeprof command, one file a command."""
