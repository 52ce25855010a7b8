"""One new token against its KV cache: split-KV, multi-head latent attention, CUDA kernels."""
