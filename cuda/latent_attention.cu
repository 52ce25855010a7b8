// Latent attention at decode for many heads, where products decide and not bytes; for sm_90a.
//
//   q [B, H, 576] bf16, latents c [B, capacity, 576] bf16: 512 columns are keys and values, 64 are keys alone; lengths [B] int32,
//   out [B, H, 512] bf16; H a multiple of 64
//
// One version, TAKING_TURNS. A block has 64 heads of a sequence and goes through its keys in steps of two tiles of 64. Two warpgroups
// share the output: the first has its left 256 columns and the scores of the first tile, the second the right ones and those of the
// second tile. Each multiplies its own weights from registers and the other's from shared memory, so that one is at its softmax while
// the other keeps the tensor cores busy. Whoever reads half a tile last has the copy engine fetch the one that follows into its place.
// This division of the work is FlashMLA's, as its authors describe it (github.com/deepseek-ai/FlashMLA).
//
// The line of all tiles is cut into equal parts; the blocks of one part, one for every 64 heads, stand side by side, so that a tile comes
// from memory once. The largest score that weights are taken against grows only when a score is above it by GROWTH: most steps leave the
// sums as they are, and a weight is at most 2^GROWTH.

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include "bulk_copy.cuh"
#include "latent_tile.cuh"
#include "pieces.cuh"
#include "wgmma.cuh"

namespace {

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Whether who has left something goes on before the other takes it. With MOEPROF_MEET all wait for each other instead, slower and with the
// same data between them: compute-sanitizer's racecheck does not follow bar.arrive and calls what is handed over by it a race.
#ifdef MOEPROF_MEET
constexpr bool AHEAD = false;
#else
constexpr bool AHEAD = true;
#endif

__device__ __forceinline__ void pass(Meeting meeting) {
    if (AHEAD) tell<THREADS>(meeting);
    else meet<THREADS>(meeting);
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
    largest(state, work.scale, step.keys, newest);
    newest[0] = grown(state.most[0], newest[0]), newest[1] = grown(state.most[1], newest[1]);
    leave_most(shared, LEFT, newest);
    pass(FIRST_MOST);
    if (shrinks(state, newest, by)) shrink(state.o, by);
    weigh(state, work.scale);
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
    pass(FIRST_WEIGHTS);
    products_wait<0>();
    refill<LEFT>(shared, latents, work, step.next, 0);
    if (grew) shrink(state.o, by);
    if (step.two) {
        meet<THREADS>(SECOND_WEIGHTS);
        await_half<LEFT>(shared, 1, step.parity(1));
    }
    if (step.more) {
        begin_others<LEFT>(shared, state, shared.q[TILES - 1], 1);
        begin_scores<LEFT, false>(shared, state, 0, step.parity(0) ^ 1);
        products_wait<1>();
        refill<LEFT>(shared, latents, work, step.next, 1);
        begin_scores<RIGHT, true>(shared, state, 0, step.parity(0) ^ 1);
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
    if (step.two) largest(state, work.scale, step.keys - KEYS, top);
    meet<THREADS>(FIRST_MOST);
    take_most(shared, LEFT, newest);
    newest[0] = grown(newest[0], top[0]), newest[1] = grown(newest[1], top[1]);
    leave_most(shared, RIGHT, newest);
    if (AHEAD) tell<THREADS>(LAST_MOST);
    if (shrinks(state, newest, by)) shrink(state.o, by);
    if (step.ends()) {
        if (step.two) clear(shared, 1, step.keys - KEYS);
        meet<THREADS>(ALL);
    }
    if (!AHEAD) meet<THREADS>(LAST_MOST);
    if (step.two) {
        uint32_t p[16];
        weigh(state, work.scale);
        packed(state, p);
        leave_weights(shared.q[TILES - 1], state);
        if (AHEAD) tell<THREADS>(SECOND_WEIGHTS);
        else meet<THREADS>(FIRST_WEIGHTS), meet<THREADS>(SECOND_WEIGHTS);
        begin_own<RIGHT>(shared, state, p, 1);
        if (AHEAD) meet<THREADS>(FIRST_WEIGHTS);
        await_half<RIGHT>(shared, 0, step.parity(0));
        begin_others<RIGHT>(shared, state, shared.weights, 0);
        products_wait<1>();
        refill<RIGHT>(shared, latents, work, step.next, 1);
    } else {
        meet<THREADS>(FIRST_WEIGHTS);
        await_half<RIGHT>(shared, 0, step.parity(0));
        begin_others<RIGHT>(shared, state, shared.weights, 0);
        refill<RIGHT>(shared, latents, work, step.next, 1);
    }
    products_wait<0>();
    refill<RIGHT>(shared, latents, work, step.next, 0);
    if (step.more && step.next.unit() > 1) {
        begin_scores<RIGHT, false>(shared, state, 1, step.parity(1) ^ 1);
        begin_scores<LEFT, true>(shared, state, 1, step.parity(1) ^ 1);
        products_wait<0>();
    }
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
        if (SIDE == LEFT || step.now.unit() > 1) {
            begin_scores<LEFT, false>(shared, state, SIDE, step.parity(SIDE));
            begin_scores<RIGHT, true>(shared, state, SIDE, step.parity(SIDE));
            products_wait<0>();
        }
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
    if (threadIdx.x < 32) scan_tiles(threadIdx.x, work.lengths, work.batch, KEYS, 1, shared.ends);
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2 * TILES; ++i) barrier_init(&shared.full[i / TILES][i % TILES], 1);
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
