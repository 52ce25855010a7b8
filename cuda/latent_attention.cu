// Latent attention at decode for many heads, where products decide and not bytes; for sm_90a.
//
//   q [B, H, 576] bf16, latents c [B, capacity, 576] bf16: 512 columns are keys and values, 64 are keys alone; lengths [B] int32,
//   out [B, H, 512] bf16; H a multiple of 64
//
// One version, TAKING_TURNS. A block has 64 heads of a sequence and goes through its keys in steps of two tiles of 64. Two warpgroups
// share the output: the first has its left 256 columns and the scores of the first tile, the second the right ones and those of the
// second tile. Each multiplies its own weights from registers and the other's from shared memory, so that one is at its softmax while
// the other keeps the tensor cores busy. Whoever reads half a tile last has the copy engine fetch the one that follows into its place.
//
// The line of all tiles is cut into equal parts; the blocks of one part, one for every 64 heads, stand side by side, so that a tile comes
// from memory once. The largest score that weights are taken against grows only when a score is above it by GROWTH: most steps leave the
// sums as they are, and a weight is at most 2^GROWTH.

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include "bulk_copy.cuh"
#include "wgmma.cuh"

namespace {

constexpr int KEYS = 64, HEADS = 64, VALUES = 512, WIDTH = 576, TILES = WIDTH / 64, HALF = 4;  // HALF: tiles of 64 columns in a half
constexpr int GROUP = 128, THREADS = 2 * GROUP, MAX_BATCH = 1024;
constexpr float GROWTH = 8.0f;
enum Place { LEFT, RIGHT };
enum Meeting { FIRST_MOST = 1, LAST_MOST, FIRST_WEIGHTS, SECOND_WEIGHTS, MINE, ALL = MINE + 2 };  // MINE + which warpgroup

struct Work {
    const int* lengths;
    __nv_bfloat16* out;
    float* parts;  // [2 * blocks, HEADS, VALUES]
    float* stats;  // [2 * blocks, 2, HEADS]: what weights were taken against, sum of weights
    int batch, units, capacity;
    float scale;   // with log2(e)
};

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)

struct Shared {
    char q[TILES][TILE];  // the last of them holds the second warpgroup's weights once all have read it
    char c[2][TILES][TILE];
    union {
        char weights[TILE];  // of the first warpgroup
        int ends[MAX_BATCH];  // before any are
    };
    float most[2][HEADS], sums[2][HEADS];
    uint64_t full[2][2], full_q;  // [tile][half]
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

// The row of a tile and its piece of 16 columns that this lane names to load_pieces and store_pieces.
__device__ __forceinline__ uint32_t lane_piece(int sixteen) {
    const int lane = threadIdx.x % 32;
    return piece(threadIdx.x % GROUP / 32 * 16 + lane % 16, 2 * sixteen + lane / 16);
}

__device__ __forceinline__ int first_row() { return threadIdx.x % GROUP / 32 * 16 + threadIdx.x % 32 / 4; }

// Inclusive scan of the sequences' tiles, by one warp.
__device__ void scan_lengths(const Work& work, int* ends) {
    int carried = 0;
    for (int base = 0; base < work.batch; base += 32) {
        const int i = base + threadIdx.x;
        int value = i < work.batch ? (work.lengths[i] + KEYS - 1) / KEYS : 0;
#pragma unroll
        for (int apart = 1; apart < 32; apart *= 2) {
            const int other = __shfl_up_sync(0xffffffffu, value, apart);
            if (int(threadIdx.x) >= apart) value += other;
        }
        if (i < work.batch) ends[i] = carried + value;
        carried += __shfl_sync(0xffffffffu, value, 31);
    }
}

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
    constexpr int FROM = SIDE == LEFT ? 0 : HALF, TO = SIDE == LEFT ? HALF : TILES;
    const int row = walk.sequence * work.capacity + (walk.block + tile) * KEYS;
    barrier_expect(&shared.full[tile][SIDE], (TO - FROM) * TILE);
#pragma unroll
    for (int i = FROM; i < TO; ++i) fetch_tile(shared.c[tile][i], latents, i * 64, row, &shared.full[tile][SIDE]);
}

// All of this warpgroup's products with half a tile are done: fetch the one that follows into its place, if there is one.
template <int SIDE>
__device__ __forceinline__ void refill(Shared& shared, const CUtensorMap* latents, const Work& work, const Walk& next, int tile) {
    meet<GROUP>(MINE + SIDE);
    if (threadIdx.x % GROUP == 0 && next.unit() > tile) fetch_half<SIDE>(shared, latents, work, next, tile);
}

// Begin the part of a tile's scores that half of its columns gives, the left half first.
template <int SIDE>
__device__ __forceinline__ void begin_scores(Shared& shared, State& state, int tile) {
    products_begin();
#pragma unroll
    for (int i = 0; i < HALF; ++i) {
        const uint64_t q = described(shared.q[SIDE * HALF + i]), c = described(shared.c[tile][SIDE * HALF + i]);
#pragma unroll
        for (int k = 0; k < 4; ++k) product(state.s, q + 2 * k, c + 2 * k, SIDE == RIGHT || i || k);
    }
    if (SIDE == RIGHT) {
        const uint64_t c = described(shared.c[tile][TILES - 1]);
#pragma unroll
        for (int k = 0; k < 4; ++k) product(state.s, &state.rope[4 * k], c + 2 * k);
    }
    products_end();
}

// All scores of a tile, once it is there.
__device__ __forceinline__ void scores(Shared& shared, State& state, int tile, uint32_t parity) {
    barrier_wait(&shared.full[tile][LEFT], parity);
    barrier_wait(&shared.full[tile][RIGHT], parity);
    begin_scores<LEFT>(shared, state, tile);
    begin_scores<RIGHT>(shared, state, tile);
    products_wait<0>();
}

// Scale the scores, -inf where there is no key, and the largest of each row.
__device__ __forceinline__ void scaled(State& state, float scale, int left, float (&top)[2]) {
    top[0] = top[1] = -INFINITY;
    const int column = 2 * (threadIdx.x % 4);
#pragma unroll
    for (int i = 0; i < 32; ++i) {
        const bool alive = left >= KEYS || i / 4 * 8 + column + i % 2 < left;
        state.s[i] = alive ? state.s[i] * scale : -INFINITY;
        top[i / 2 % 2] = fmaxf(top[i / 2 % 2], state.s[i]);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 1));
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 2));
    }
}

__device__ __forceinline__ float grown(float most, float top) { return top > most + GROWTH ? top : most; }

// Weights against ``state.most`` in place of the scores, and this thread's sum of them.
__device__ __forceinline__ void weigh(State& state) {
#pragma unroll
    for (int i = 0; i < 32; ++i) {
        state.s[i] = power(state.s[i] - state.most[i / 2 % 2]);
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

// One step: which tiles, what follows, and how often each of the two places was filled before.
struct Step {
    Walk now, next;
    int used[2], keys;  // keys: of the sequence, from the first tile's first
    bool two, more;     // the second place has a tile too; the unit goes on

    __device__ __forceinline__ uint32_t parity(int tile) const { return used[tile] & 1; }
    __device__ __forceinline__ bool ends() const { return keys < (two ? 2 : 1) * KEYS; }  // inside a tile
};

__device__ __forceinline__ void leave_most(Shared& shared, Place side, const float (&most)[2]) {
    if (threadIdx.x % 4) return;
    shared.most[side][first_row()] = most[0];
    shared.most[side][first_row() + 8] = most[1];
}

__device__ __forceinline__ void take_most(const Shared& shared, Place side, float (&most)[2]) {
    most[0] = shared.most[side][first_row()];
    most[1] = shared.most[side][first_row() + 8];
}

// The first warpgroup's step; the scores of the first tile are done, in the end those of the next first tile.
__device__ __forceinline__ void first_step(Shared& shared, const CUtensorMap* latents, const Work& work, const Step& step, State& state) {
    float newest[2], by[2];
    uint32_t p[16];
    scaled(state, work.scale, step.keys, newest);
    newest[0] = grown(state.most[0], newest[0]), newest[1] = grown(state.most[1], newest[1]);
    leave_most(shared, LEFT, newest);
    tell<THREADS>(FIRST_MOST);
    if (shrinks(state, newest, by)) shrink(state.o, by);
    weigh(state);
    packed(state, p);
    if (step.ends()) {
        if (!step.two) clear(shared, 0, step.keys);
        meet<THREADS>(ALL);
    }
    begin_own<LEFT>(shared, state, p, 0);
    meet<THREADS>(LAST_MOST);
    take_most(shared, RIGHT, newest);
    const bool grew = shrinks(state, newest, by);
    if (grew) shrink(state.s, by);
    leave_weights(shared.weights, state);
    tell<THREADS>(FIRST_WEIGHTS);
    products_wait<0>();
    refill<LEFT>(shared, latents, work, step.next, 0);
    if (grew) shrink(state.o, by);
    if (step.two) {
        meet<THREADS>(SECOND_WEIGHTS);
        barrier_wait(&shared.full[1][LEFT], step.parity(1));
    }
    if (step.more) {
        barrier_wait(&shared.full[0][LEFT], step.parity(0) ^ 1);
        begin_others<LEFT>(shared, state, shared.q[TILES - 1], 1);
        begin_scores<LEFT>(shared, state, 0);
        products_wait<1>();
        refill<LEFT>(shared, latents, work, step.next, 1);
        barrier_wait(&shared.full[0][RIGHT], step.parity(0) ^ 1);
        begin_scores<RIGHT>(shared, state, 0);
        products_wait<0>();
    } else {
        if (step.two) {
            begin_others<LEFT>(shared, state, shared.q[TILES - 1], 1);
            products_wait<0>();
        }
        refill<LEFT>(shared, latents, work, step.next, 1);
    }
}

// The second warpgroup's step; the scores of the second tile are done, where there is one, in the end those of the next second tile.
__device__ __forceinline__ void second_step(Shared& shared, const CUtensorMap* latents, const Work& work, const Step& step, State& state) {
    float top[2] = {-INFINITY, -INFINITY}, newest[2], by[2];
    uint32_t p[16];
    if (step.two) scaled(state, work.scale, step.keys - KEYS, top);
    meet<THREADS>(FIRST_MOST);
    take_most(shared, LEFT, newest);
    newest[0] = grown(newest[0], top[0]), newest[1] = grown(newest[1], top[1]);
    leave_most(shared, RIGHT, newest);
    tell<THREADS>(LAST_MOST);
    const bool grew = shrinks(state, newest, by);
    if (step.two) {
        weigh(state);
        packed(state, p);
    }
    if (step.ends()) {
        if (step.two) clear(shared, 1, step.keys - KEYS);
        meet<THREADS>(ALL);
    }
    if (grew) shrink(state.o, by);
    if (step.two) {
        leave_weights(shared.q[TILES - 1], state);
        tell<THREADS>(SECOND_WEIGHTS);
        begin_own<RIGHT>(shared, state, p, 1);
        meet<THREADS>(FIRST_WEIGHTS);
        barrier_wait(&shared.full[0][RIGHT], step.parity(0));
        begin_others<RIGHT>(shared, state, shared.weights, 0);
        products_wait<1>();
        refill<RIGHT>(shared, latents, work, step.next, 1);
    } else {
        meet<THREADS>(FIRST_WEIGHTS);
        barrier_wait(&shared.full[0][RIGHT], step.parity(0));
        begin_others<RIGHT>(shared, state, shared.weights, 0);
        refill<RIGHT>(shared, latents, work, step.next, 1);
    }
    products_wait<0>();
    refill<RIGHT>(shared, latents, work, step.next, 0);
    if (step.more && step.next.unit() > 1) scores(shared, state, 1, step.parity(1) ^ 1);
}

// The queries of 64 heads, and the columns that are keys alone in registers.
__device__ __forceinline__ void load_query(Shared& shared, const CUtensorMap* queries, int row, uint32_t parity, State& state) {
    if (threadIdx.x == 0) {
        barrier_expect(&shared.full_q, TILES * TILE);
#pragma unroll
        for (int i = 0; i < TILES; ++i) fetch_tile(shared.q[i], queries, i * 64, row, &shared.full_q);
    }
    barrier_wait(&shared.full_q, parity);
#pragma unroll
    for (int k = 0; k < 4; ++k) load_pieces(address(shared.q[TILES - 1]) + lane_piece(k), &state.rope[4 * k]);
    meet<THREADS>(ALL);
}

// The unit's output [64, 512] where this block had all of it, else its part; each warpgroup its half.
template <int SIDE>
__device__ void finish(Shared& shared, const Work& work, int unit, bool begins, bool whole, State& state) {
    const int row = first_row(), column = SIDE * HALF * 64 + threadIdx.x % 4 * 2;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        state.sum[r] += __shfl_xor_sync(0xffffffffu, state.sum[r], 1);
        state.sum[r] += __shfl_xor_sync(0xffffffffu, state.sum[r], 2);
        if (threadIdx.x % 4 == 0) shared.sums[SIDE][row + 8 * r] = state.sum[r];
    }
    meet<THREADS>(ALL);
    const int64_t slot = 2 * int64_t(blockIdx.x) + begins;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int mine = row + 8 * r;
        const float sum = shared.sums[0][mine] + shared.sums[1][mine], share = 1.0f / sum;
        uint32_t* out = reinterpret_cast<uint32_t*>(work.out + (int64_t(unit) * HEADS + mine) * VALUES + column);
        float2* part = reinterpret_cast<float2*>(work.parts + (slot * HEADS + mine) * VALUES + column);
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            const float low = state.o[4 * i + 2 * r], high = state.o[4 * i + 2 * r + 1];
            if (whole) out[4 * i] = pack(low * share, high * share);
            else part[4 * i] = {low, high};
        }
        if (SIDE == LEFT && !whole && threadIdx.x % 4 == 0) {
            work.stats[slot * 2 * HEADS + mine] = state.most[r];
            work.stats[slot * 2 * HEADS + HEADS + mine] = sum;
        }
    }
}

template <int SIDE>
__device__ __forceinline__ void run(Shared& shared, const CUtensorMap* queries, const CUtensorMap* latents, const Work& work, Walk now) {
    State state;
    Step step = {now, now, {0, 0}};
    for (int units = 0; step.now.left > 0; ++units) {
        const int unit = step.now.sequence * work.units + int(blockIdx.x) % work.units, length = work.lengths[step.now.sequence];
        const bool begins = step.now.block == 0, whole = begins && step.now.unit() == step.now.blocks;
        load_query(shared, queries, unit * HEADS, units & 1, state);
#pragma unroll
        for (int i = 0; i < 128; ++i) state.o[i] = 0.0f;
        state.most[0] = state.most[1] = -INFINITY, state.sum[0] = state.sum[1] = 0.0f;
        if (SIDE == LEFT || step.now.unit() > 1) scores(shared, state, SIDE, step.parity(SIDE));
        do {
            step.next = step.now.after(work);
            step.two = step.now.unit() > 1, step.more = step.now.unit() > 2, step.keys = length - step.now.block * KEYS;
            if (SIDE == LEFT) first_step(shared, latents, work, step, state);
            else second_step(shared, latents, work, step, state);
            step.used[0] += 1, step.used[1] += step.two, step.now = step.next;
        } while (step.more);
        finish<SIDE>(shared, work, unit, begins, whole, state);
    }
}

__global__ void __launch_bounds__(THREADS, 1)
taking_turns(const __grid_constant__ CUtensorMap queries, const __grid_constant__ CUtensorMap latents, const Work work) {
    extern __shared__ __align__(1024) char raw[];
    Shared& shared = *reinterpret_cast<Shared*>(raw);
    if (threadIdx.x < 32) scan_lengths(work, shared.ends);
    if (threadIdx.x == 0) {
        for (int i = 0; i < 4; ++i) barrier_init(&shared.full[i / 2][i % 2], 1);
        barrier_init(&shared.full_q, 1);
        barriers_ready();
    }
    __syncthreads();
    const Walk now = part_of(work, shared.ends);
    if (threadIdx.x == 0) {
        for (int tile = 0; tile < 2 && tile < now.unit() && now.left > 0; ++tile) {
            fetch_half<LEFT>(shared, &latents, work, now, tile);
            fetch_half<RIGHT>(shared, &latents, work, now, tile);
        }
    }
    if (threadIdx.x < GROUP) run<LEFT>(shared, &queries, &latents, work, now);
    else run<RIGHT>(shared, &queries, &latents, work, now);
}

constexpr int BYTES = sizeof(Shared);
static_assert(BYTES <= 227 * 1024, "more shared memory than a block can have");

#else

__global__ void taking_turns(const CUtensorMap, const CUtensorMap, const Work) {}

constexpr int BYTES = 0;

#endif

// A matrix of rows of 576 bf16, in tiles of 64 by 64.
CUresult describe(CUtensorMap* map, const void* data, uint64_t rows) {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found) || found != cudaDriverEntryPointSuccess)
        return CUDA_ERROR_NOT_FOUND;
    const cuuint64_t sizes[2] = {WIDTH, rows}, strides[1] = {WIDTH * 2};
    const cuuint32_t box[2] = {64, 64}, steps[2] = {1, 1};
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function)(
        map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

}  // namespace

// Enqueue one decode step. heads: a multiple of 64; blocks: of the grid, a multiple of heads / 64; capacity: rows of a sequence; parts
// [2 * blocks, 64, 512]; stats [2 * blocks, 2, 64]; scale includes log2(e). Parts of sequences that blocks share are left unmerged.
extern "C" int moeprof_latent(const void* q, const void* c, const void* lengths, void* out, void* parts, void* stats, int batch, int heads, int capacity,
                              float scale, int blocks, void* stream) {
    const int units = heads / HEADS;
    if (batch < 1 || batch > MAX_BATCH || heads < HEADS || heads % HEADS || blocks < units || blocks % units) return cudaErrorInvalidValue;
    CUtensorMap queries, latents;
    if (describe(&queries, q, uint64_t(batch) * heads) || describe(&latents, c, uint64_t(batch) * capacity)) return cudaErrorInvalidValue;
    const cudaError_t error = cudaFuncSetAttribute(taking_turns, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (error) return error;
    const Work work = {static_cast<const int*>(lengths), static_cast<__nv_bfloat16*>(out), static_cast<float*>(parts), static_cast<float*>(stats),
                       batch, units, capacity, scale};
    taking_turns<<<blocks, THREADS, BYTES, static_cast<cudaStream_t>(stream)>>>(queries, latents, work);
    return cudaGetLastError();
}
