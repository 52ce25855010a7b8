"""A KV cache sent layer by layer over a link, beside the compute or after it."""
