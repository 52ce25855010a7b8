"""What a workload is, the models of its best possible time, and how one is found."""
