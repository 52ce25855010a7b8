"""Run a workload or a program under the profilers of this machine, and save the results as a capture folder."""

from moeprof.capture.progress import Progress, Silent
from moeprof.capture.ranks import elsewhere
from moeprof.capture.request import Request
from moeprof.capture.run import Result, capture, dry_run
from moeprof.machine.command import Command

__all__ = ["Command", "Progress", "Request", "Result", "Silent", "capture", "dry_run", "elsewhere"]
