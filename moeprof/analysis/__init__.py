"""The numbers of one trace: ledger, overlap, launches, causes. Pure: Trace -> Analysis."""
