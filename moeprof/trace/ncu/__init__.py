"""Reader of Nsight Compute CSV and reports."""
