"""moeprof: capture, analyse and compare CUDA workloads of mixture-of-experts inference.

A workload author needs only these names, and a program of any kind only ``region``; everything else is reached through the
``moeprof`` command.
"""

from moeprof.worker.region import region
from moeprof.workload.bounds import Exchange, Pipeline, Roofline
from moeprof.workload.model import Machine, Proof, Step, Variant, Workload

__version__ = "0.1.0"
__all__ = [
    "Exchange",
    "Machine",
    "Pipeline",
    "Proof",
    "Roofline",
    "Step",
    "Variant",
    "Workload",
    "__version__",
    "region",
]
