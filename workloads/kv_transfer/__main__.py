"""``python -m moeprof.workloads.kv_transfer`` runs one variant as a plain script."""

from moeprof.worker.script import main
from moeprof.workloads.kv_transfer.workload import WORKLOAD

main(WORKLOAD)
