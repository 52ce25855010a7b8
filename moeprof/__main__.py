"""``python -m moeprof`` is the ``moeprof`` command."""

from moeprof.cli.main import main

main()
