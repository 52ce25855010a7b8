"""Stands for the command ``moeprof`` on PATH: asks the warm process behind the inherited socket MOEPROF_FORKS for a fork that runs it.

Run with ``python -I -S``; ends as the command ends.
"""

import json
import os
import socket
import sys

requests = socket.socket(fileno=int(os.environ.pop("MOEPROF_FORKS")))
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
argv = [sys.executable, "-P", "-m", "moeprof", *sys.argv[1:]]
request = {"argv": argv, "cwd": os.getcwd(), "env": dict(os.environ)}  # noqa: PTH109 -- pathlib would take longer than the rest
socket.send_fds(requests, [json.dumps(request).encode()], [theirs.fileno(), 0, 1, 2])
theirs.close()
ours.recv(64)  # the number of its process
status = int(ours.recv(64) or -9)
sys.exit(status if status >= 0 else 128 - status)
