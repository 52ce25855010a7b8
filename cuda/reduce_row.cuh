// The arithmetic of stream_tile.cu: a half-warp takes one row of 128 bf16 values, 16 bytes a lane.
#pragma once

#include <stdint.h>

constexpr int LANES = 16;

__device__ __forceinline__ void widen(const uint4& packed, float (&values)[8]) {
    const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {  // a bf16 is the upper half of an fp32
        values[2 * i] = __uint_as_float(words[i] << 16);
        values[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}

// One row in a half-warp: its score, then its share of the sum.
__device__ __forceinline__ void take(const uint4& packed, const float (&query)[8], float (&sum)[8]) {
    float row[8], score = 0.0f;
    widen(packed, row);
#pragma unroll
    for (int i = 0; i < 8; ++i) score = fmaf(row[i], query[i], score);
#pragma unroll
    for (int apart = LANES / 2; apart > 0; apart /= 2) score += __shfl_xor_sync(0xffffffffu, score, apart);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] = fmaf(score, row[i], sum[i]);
}
