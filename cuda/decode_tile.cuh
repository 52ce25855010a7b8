// What a warp does with 16 keys of a tile in decode_attention.cu: scores, softmax in base 2, weighted sum; and how the warps merge.
#pragma once

#include <cuda_bf16.h>
#include <stdint.h>

#include "pieces.cuh"

namespace {

constexpr int KEYS = 64;
constexpr int WARPS = 4;
constexpr int CONSUMERS = 32 * WARPS;
constexpr int THREADS = CONSUMERS + 32;
constexpr int STAGES = 3;
constexpr int ROWS = 16;  // heads of a group, padded
constexpr int MAX_BATCH = 1024;

struct Work {
    const __nv_bfloat16 *q, *k, *v;
    const int* lengths;
    __nv_bfloat16* out;
    float* parts;  // [2 * programs, ROWS, D]
    float* stats;  // [2 * programs, 2, ROWS]: largest score, sum of weights
    int* counts;   // [B * HKV], zero between launches
    int batch, heads, group, capacity;
    float scale;   // with log2(e)
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

__device__ __forceinline__ void sync_consumers() { asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS) : "memory"); }

// c [16, 8] += a [16, 16] b [16, 8]
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A warp's state: scores' largest value, sum of weights (this thread's share), output [16, D] as fragments; rows g and g + 8.
template <int D>
struct State {
    float most[2], weight[2], acc[D / 8][4];

    __device__ __forceinline__ void clear() {
        most[0] = most[1] = -INFINITY;
        weight[0] = weight[1] = 0.0f;
#pragma unroll
        for (int n = 0; n < D / 8; ++n) acc[n][0] = acc[n][1] = acc[n][2] = acc[n][3] = 0.0f;
    }
};

// The group's queries as fragments: step 2 i + s of thread (g, j) holds columns 8 (j + 4 i) + 4 s + {0, 1} and {2, 3}.
template <int D>
__device__ __forceinline__ void load_query(const Work& work, int unit, uint32_t (&q)[D / 16][4]) {
    const int g = threadIdx.x % 32 / 4, j = threadIdx.x % 4;
    const uint32_t* rows = reinterpret_cast<const uint32_t*>(work.q + int64_t(unit) * work.group * D);
#pragma unroll
    for (int step = 0; step < D / 16; ++step) {
        const int word = (8 * (j + 4 * (step / 2)) + 4 * (step % 2)) / 2;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = g + 8 * half;
            q[step][half] = row < work.group ? rows[row * (D / 2) + word] : 0;
            q[step][half + 2] = row < work.group ? rows[row * (D / 2) + word + 1] : 0;
        }
    }
}

// 16 keys of a tile, ``base`` the first of them in the tile; ``left``: keys of the tile that exist.
template <int D, bool PARTIAL>
__device__ __forceinline__ void attend(const uint4* k, const uint4* v, int base, int left, float scale, const uint32_t (&q)[D / 16][4], State<D>& state) {
    constexpr int CHUNKS = D / 8;  // of a row, 16 bytes each
    const int g = threadIdx.x % 32 / 4, j = threadIdx.x % 4;
    float scores[2][4] = {};
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int i = 0; i < D / 32; ++i) {
            const uint4 key = k[(base + 8 * n + g) * CHUNKS + j + 4 * i];
            mma(scores[n], q[2 * i], key.x, key.y);
            mma(scores[n], q[2 * i + 1], key.z, key.w);
        }
    float newest[2] = {state.most[0], state.most[1]};
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            scores[n][c] *= scale;
            if (PARTIAL && base + 8 * n + 2 * j + (c & 1) >= left) scores[n][c] = -INFINITY;
            newest[c / 2] = fmaxf(newest[c / 2], scores[n][c]);
        }
#pragma unroll
    for (int row = 0; row < 2; ++row) {
        newest[row] = fmaxf(newest[row], __shfl_xor_sync(0xffffffffu, newest[row], 1));
        newest[row] = fmaxf(newest[row], __shfl_xor_sync(0xffffffffu, newest[row], 2));
    }
    if (PARTIAL && newest[0] == -INFINITY) return;  // none of these keys exists, and none before: rows agree
    if (__any_sync(0xffffffffu, newest[0] > state.most[0] || newest[1] > state.most[1])) {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
            const float shrink = power(state.most[row] - newest[row]);
            state.weight[row] *= shrink;
#pragma unroll
            for (int n = 0; n < CHUNKS; ++n) {
                state.acc[n][2 * row] *= shrink;
                state.acc[n][2 * row + 1] *= shrink;
            }
            state.most[row] = newest[row];
        }
    }
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            scores[n][c] = power(scores[n][c] - state.most[c / 2]);
            state.weight[c / 2] += scores[n][c];
        }
    const uint32_t p[4] = {pack(scores[0][0], scores[0][1]), pack(scores[0][2], scores[0][3]), pack(scores[1][0], scores[1][1]), pack(scores[1][2], scores[1][3])};
    // column n of product c is column 8 (2 g' + half) + c of the output, g' = n: each thread reads the chunks of its own column
#pragma unroll
    for (int half = 0; half < CHUNKS / 8; ++half) {
        uint32_t words[4][4];
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            const int key = base + 8 * (r / 2) + 2 * j + r % 2;
            uint4 value = v[key * CHUNKS + g * (CHUNKS / 8) + half];
            if (PARTIAL && key >= left) value = make_uint4(0, 0, 0, 0);
            words[r][0] = value.x, words[r][1] = value.y, words[r][2] = value.z, words[r][3] = value.w;
        }
#pragma unroll
        for (int c = 0; c < 8; ++c) {
            const uint32_t take = c % 2 ? 0x7632u : 0x5410u;
            mma(state.acc[8 * half + c], p, __byte_perm(words[0][c / 2], words[1][c / 2], take), __byte_perm(words[2][c / 2], words[3][c / 2], take));
        }
    }
}

// The output column of accumulator n, element e of thread j: see attend.
template <int D>
__device__ __forceinline__ int column(int n, int e, int j) {
    return 8 * ((2 * j + e) * (D / 64) + n / 8) + n % 8;
}

// Where the merged sum of a head and column lies in shared memory: the eight rows and four threads that a warp writes at once fall into
// 32 banks.
template <int D>
struct Sums {
    static constexpr int PITCH = D + 4;
    static constexpr int SIZE = ROWS * PITCH;

    __device__ static __forceinline__ int cell(int row, int column) { return row * PITCH + column + column / (D / 4); }
};

// Merge the four warps' states: ``sums`` of the group's heads (see Sums) and ``merged`` [2, ROWS], largest scores and sums of weights. Each
// warp adds another quarter of the columns at a time, so that the order of the sum is fixed and none waits.
template <int D>
__device__ void merge(State<D>& state, int group, float* sums, float* merged, float* warps) {
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, j = threadIdx.x % 4;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
        state.weight[row] += __shfl_xor_sync(0xffffffffu, state.weight[row], 1);
        state.weight[row] += __shfl_xor_sync(0xffffffffu, state.weight[row], 2);
        if (j == 0) {
            warps[(2 * warp) * ROWS + g + 8 * row] = state.most[row];
            warps[(2 * warp + 1) * ROWS + g + 8 * row] = state.weight[row];
        }
    }
    sync_consumers();
    float own[2];
#pragma unroll
    for (int row = 0; row < 2; ++row) {
        const int r = g + 8 * row;
        float most = -INFINITY, weight = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) most = fmaxf(most, warps[2 * w * ROWS + r]);
#pragma unroll
        for (int w = 0; w < WARPS; ++w) {
            const float theirs = warps[2 * w * ROWS + r];
            weight += theirs == -INFINITY ? 0.0f : warps[(2 * w + 1) * ROWS + r] * power(theirs - most);
        }
        own[row] = state.most[row] == -INFINITY ? 0.0f : power(state.most[row] - most);
        if (warp == 0 && j == 0) {
            merged[r] = most;
            merged[ROWS + r] = weight;
        }
    }
#pragma unroll
    for (int turn = 0; turn < WARPS; ++turn) {
#pragma unroll
        for (int n = 0; n < D / 8; ++n) {
            if (n / (D / 8 / WARPS) != (warp + turn) % WARPS) continue;
#pragma unroll
            for (int e = 0; e < 2; ++e)
#pragma unroll
                for (int row = 0; row < 2; ++row) {
                    if (g + 8 * row >= group) continue;
                    float* cell = &sums[Sums<D>::cell(g + 8 * row, column<D>(n, e, j))];
                    *cell = (turn ? *cell : 0.0f) + state.acc[n][2 * row + e] * own[row];
                }
        }
        sync_consumers();
    }
}

#endif

}  // namespace
