// Small pieces that kernels over a cache share: powers of two, pairs of bf16, and how many tiles lie before each sequence's end.
#pragma once

#include <stdint.h>

__device__ __forceinline__ float power(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ uint32_t pack(float low, float high) {
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

// Inclusive scan of the sequences' tiles of ``keys``, each ``times``, by the lanes of one warp.
__device__ __forceinline__ void scan_tiles(int lane, const int* lengths, int batch, int keys, int times, int* ends) {
    int carried = 0;
    for (int base = 0; base < batch; base += 32) {
        const int i = base + lane;
        int value = i < batch ? (lengths[i] + keys - 1) / keys * times : 0;
#pragma unroll
        for (int apart = 1; apart < 32; apart *= 2) {
            const int other = __shfl_up_sync(0xffffffffu, value, apart);
            if (lane >= apart) value += other;
        }
        if (i < batch) ends[i] = carried + value;
        carried += __shfl_sync(0xffffffffu, value, 31);
    }
}
