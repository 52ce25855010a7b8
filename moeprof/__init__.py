"""moeprof: capture, analyse and compare CUDA workloads of mixture-of-experts inference.

A workload author needs only these names; everything else is reached through the ``moeprof`` command.
"""

from moeprof.workload.bounds import Exchange, Pipeline, Roofline
from moeprof.workload.model import Machine, Proof, Step, Variant, Workload

__version__ = "0.1.0"
__all__ = ["Exchange", "Machine", "Pipeline", "Proof", "Roofline", "Step", "Variant", "Workload", "__version__"]
