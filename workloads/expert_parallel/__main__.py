"""``python -m moeprof.workloads.expert_parallel`` runs one variant as a plain script."""

from moeprof.worker.script import main
from moeprof.workloads.expert_parallel.workload import WORKLOAD

main(WORKLOAD)
