"""``python -m moeprof.workloads.router`` runs one variant as a plain script."""

from moeprof.worker.script import main
from moeprof.workloads.router.workload import WORKLOAD

main(WORKLOAD)
