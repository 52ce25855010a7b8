// What latent_attention.cu does with a tile of 64 latents: where it lies and how it comes, scores, weights, products.
#pragma once

#include <cuda_bf16.h>
#include <stdint.h>

#include "bulk_copy.cuh"
#include "pieces.cuh"
#include "wgmma.cuh"

namespace {

constexpr int HEADS = 64, WIDTH = 576, THREADS = 256, MAX_BATCH = 1024;

struct Work {
    const int* lengths;
    __nv_bfloat16* out;
    float* parts;  // [2 * blocks, HEADS, VALUES]
    float* stats;  // [2 * blocks, 2, HEADS]: what weights were taken against, sum of weights
    int batch, units, capacity;
    float scale;   // with log2(e)
};

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int KEYS = 64, VALUES = 512, TILES = WIDTH / 64, HALF = 4, GROUP = THREADS / 2;  // HALF: tiles of 64 columns in half the values
constexpr float GROWTH = 8.0f;
enum Place { LEFT, RIGHT };
enum Meeting { FIRST_MOST = 1, LAST_MOST, FIRST_WEIGHTS, SECOND_WEIGHTS, MINE, ALL = MINE + 2 };  // MINE + which warpgroup

struct Shared {
    char q[TILES][TILE];  // the last of them holds the second warpgroup's weights once all have read it
    char c[2][TILES][TILE];
    union {
        char weights[TILE];  // of the first warpgroup
        int ends[MAX_BATCH];  // before any are
    };
    float most[2][HEADS], sums[2][HEADS];
    uint64_t full[2][TILES], full_q;
};

// A walk through a part of the line, two tiles at a time.
struct Walk {
    int left, sequence, block, blocks;  // tiles from here to the part's end; where it is, and the sequence's tiles

    __device__ __forceinline__ int unit() const { return min(left, blocks - block); }

    __device__ __forceinline__ Walk after(const Work& work) const {
        const int took = min(2, unit());
        Walk next = {left - took, sequence, block + took, blocks};
        while (next.left > 0 && next.block >= next.blocks) {
            next.block = 0;
            next.blocks = (work.lengths[++next.sequence] + KEYS - 1) / KEYS;
        }
        return next;
    }
};

struct State {
    float o[128], s[32], most[2], sum[2];  // rows g and g + 8 of the warp's 16; sums are this thread's
    uint32_t rope[16];
};

// The row of a tile and its piece of 16 columns that this lane names to load_pieces and store_pieces.
__device__ __forceinline__ uint32_t lane_piece(int sixteen) {
    const int lane = threadIdx.x % 32;
    return piece(threadIdx.x % GROUP / 32 * 16 + lane % 16, 2 * sixteen + lane / 16);
}

__device__ __forceinline__ int first_row() { return threadIdx.x % GROUP / 32 * 16 + threadIdx.x % 32 / 4; }

// This block's part of the line of all sequences' tiles.
__device__ Walk part_of(const Work& work, const int* ends) {
    const int total = ends[work.batch - 1], parts = min(total, int(gridDim.x) / work.units), part = int(blockIdx.x) / work.units;
    const int at = int(int64_t(total) * min(part, parts) / parts), stop = int(int64_t(total) * min(part + 1, parts) / parts);
    int b = 0;
    while (b + 1 < work.batch && ends[b] <= at) ++b;
    const int blocks = (work.lengths[b] + KEYS - 1) / KEYS;
    return {stop - at, b, at - (ends[b] - blocks), blocks};
}

template <int SIDE>
__device__ __forceinline__ void fetch_half(Shared& shared, const CUtensorMap* latents, const Work& work, const Walk& walk, int tile) {
    const int row = walk.sequence * work.capacity + (walk.block + tile) * KEYS;
#pragma unroll
    for (int i = SIDE == LEFT ? 0 : HALF; i < (SIDE == LEFT ? HALF : TILES); ++i) {
        barrier_expect(&shared.full[tile][i], TILE);
        fetch_tile(shared.c[tile][i], latents, i * 64, row, &shared.full[tile][i]);
    }
}

// Wait until the values of half a tile are there.
template <int SIDE>
__device__ __forceinline__ void await_half(Shared& shared, int tile, uint32_t parity) {
#pragma unroll
    for (int i = 0; i < HALF; ++i) barrier_wait(&shared.full[tile][SIDE * HALF + i], parity);
}

// All of this warpgroup's products with half a tile are done: fetch the one that follows into its place, if there is one.
template <int SIDE>
__device__ __forceinline__ void refill(Shared& shared, const CUtensorMap* latents, const Work& work, const Walk& next, int tile) {
    meet<GROUP>(MINE + SIDE);
    if (threadIdx.x % GROUP == 0 && next.unit() > tile) fetch_half<SIDE>(shared, latents, work, next, tile);
}

// Begin the part of a tile's scores that half of its columns gives, each 64 of them once they are there.
template <int SIDE, bool ADD>
__device__ __forceinline__ void begin_scores(Shared& shared, State& state, int tile, uint32_t parity) {
#pragma unroll
    for (int i = SIDE * HALF; i < SIDE * HALF + HALF; ++i) {
        barrier_wait(&shared.full[tile][i], parity);
        products_begin();
        const uint64_t q = described(shared.q[i]), c = described(shared.c[tile][i]);
#pragma unroll
        for (int k = 0; k < 4; ++k) product(state.s, q + 2 * k, c + 2 * k, ADD || i > SIDE * HALF || k);
    }
    if (SIDE == RIGHT) {
        barrier_wait(&shared.full[tile][TILES - 1], parity);
        products_begin();
        const uint64_t c = described(shared.c[tile][TILES - 1]);
#pragma unroll
        for (int k = 0; k < 4; ++k) product(state.s, &state.rope[4 * k], c + 2 * k);
    }
    products_end();
}

// The largest score of each row, scaled; scores where there is no key become -inf.
__device__ __forceinline__ void largest(State& state, float scale, int left, float (&top)[2]) {
    if (left < KEYS) {
        const int column = 2 * (threadIdx.x % 4);
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            if (i / 4 * 8 + column + i % 2 >= left) state.s[i] = -INFINITY;
        }
    }
    top[0] = top[1] = -INFINITY;
#pragma unroll
    for (int i = 0; i < 32; ++i) top[i / 2 % 2] = fmaxf(top[i / 2 % 2], state.s[i]);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 1));
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 2)) * scale;
    }
}

__device__ __forceinline__ float grown(float most, float top) { return top > most + GROWTH ? top : most; }

// Weights against ``state.most`` in place of the scores, and this thread's sum of them.
__device__ __forceinline__ void weigh(State& state, float scale) {
#pragma unroll
    for (int i = 0; i < 32; ++i) {
        state.s[i] = power(fmaf(state.s[i], scale, -state.most[i / 2 % 2]));
        state.sum[i / 2 % 2] += state.s[i];
    }
}

// From now on sums are taken against ``newest``; what they and the output shrink by, and whether anything does in this warp.
__device__ __forceinline__ bool shrinks(State& state, const float (&newest)[2], float (&by)[2]) {
    bool grew = false;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        by[r] = newest[r] == state.most[r] ? 1.0f : power(state.most[r] - newest[r]);
        grew |= newest[r] != state.most[r];
        state.most[r] = newest[r];
        state.sum[r] *= by[r];
    }
    return __any_sync(0xffffffffu, grew);
}

template <int N>
__device__ __forceinline__ void shrink(float (&values)[N], const float (&by)[2]) {
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] *= by[i / 2 % 2];
}

__device__ __forceinline__ void packed(const State& state, uint32_t (&p)[16]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) p[i] = pack(state.s[2 * i], state.s[2 * i + 1]);
}

__device__ __forceinline__ void leave_weights(char* tile, const State& state) {
    uint32_t p[16];
    packed(state, p);
#pragma unroll
    for (int k = 0; k < 4; ++k) store_pieces(address(tile) + lane_piece(k), &p[4 * k]);
    written();
}

// Begin to add this warpgroup's own weights, or the other's, times its half of a tile's values.
template <int SIDE>
__device__ __forceinline__ void begin_own(Shared& shared, State& state, const uint32_t (&p)[16], int tile) {
    const uint64_t c = described(shared.c[tile][SIDE * HALF], TILE);
    products_begin();
#pragma unroll
    for (int k = 0; k < 4; ++k) product(state.o, &p[4 * k], c + k * (16 * TILE_ROW / 16));
    products_end();
}

template <int SIDE>
__device__ __forceinline__ void begin_others(Shared& shared, State& state, const char* weights, int tile) {
    const uint64_t c = described(shared.c[tile][SIDE * HALF], TILE), p = described(weights);
    products_begin();
#pragma unroll
    for (int k = 0; k < 4; ++k) product(state.o, p + 2 * k, c + k * (16 * TILE_ROW / 16));
    products_end();
}

// Zeros in a tile's rows past the length, which may hold NaN: a weight of zero does not undo it.
__device__ void clear(Shared& shared, int tile, int left) {
    for (int i = threadIdx.x % GROUP; i < 2 * HALF * (KEYS - left) * 8; i += GROUP) {
        const int column = i / 8 % (2 * HALF), row = left + i / 8 / (2 * HALF);
        *reinterpret_cast<uint4*>(&shared.c[tile][column][row * TILE_ROW + i % 8 * 16]) = {0, 0, 0, 0};
    }
    written();
}

#endif

}  // namespace
