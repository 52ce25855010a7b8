"""``python -m moeprof`` is the ``moeprof`` command."""

from moeprof.cli import main

main()
