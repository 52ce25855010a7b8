"""Reader of torch.profiler (Kineto) JSON."""
