"""The built-in workloads, imported as ``moeprof.workloads``: one module a technique, each ends with ``WORKLOAD``."""
