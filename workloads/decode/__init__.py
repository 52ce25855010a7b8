"""One new token against its KV cache: three workloads.

=================  ==================  =======================================  =======================
workload           its work            techniques in files of their own         kernels
=================  ==================  =======================================  =======================
decode_attention   attention, split_kv attention_{sdpa,split_kv,paged,cuda}     kernels/attention
mla_decode         mla, split_kv       mla_split_kv, mla_cuda                   kernels/{mla,mla_hopper}
decode_kernel      stream              (in cuda/stream_tile.cu)
=================  ==================  =======================================  =======================

``sequences``, ``check`` and ``faults`` serve all three.
"""
