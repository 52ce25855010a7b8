// The inner loop of a decode kernel: stream a KV-cache slice and reduce it against a query.
//
//   cache [slices, rows, 128] bf16, query [slices, 128] bf16, out [slices, 128] fp32
//   out[s] = sum over r of (cache[s, r] . query[s]) * cache[s, r] / rows
//
// Every byte of the cache is used twice (a score, a weighted sum), as in attention without the exponential. Versions in rising
// order, one idea each; all cut the line of all tiles into equal parts, one a block, and share the arithmetic:
//
//   BASELINE       the block copies a tile of 64 rows to shared memory, waits, computes, waits: copy and compute take turns
//   VECTORIZED     no shared memory: eight 128-bit loads in flight a thread, straight to registers
//   TMA            the tile comes by cp.async.bulk on an mbarrier, two stages: the next tile loads while this one is computed
//   TMA_PIPELINED  six stages, a producer warp of its own, lines evicted first from L2
//
// The last two need sm_90. No torch header is included; the launchers are extern "C" and return a cudaError_t.

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include "bulk_copy.cuh"
#include "reduce_row.cuh"

namespace {

constexpr int COLS = 128;
constexpr int TILE_ROWS = 64;
constexpr int TILE_BYTES = TILE_ROWS * COLS * 2;
constexpr int WARPS = 8;
constexpr int THREADS = 32 * WARPS;
constexpr int ROWS_A_STEP = 2 * WARPS;  // rows that the block's half-warps take at once
constexpr int STAGES = 6;

enum Variant { BASELINE = 0, VECTORIZED = 1, TMA = 2, TMA_PIPELINED = 3 };

struct Work {
    const __nv_bfloat16* cache;
    const __nv_bfloat16* query;
    float* out;
    float* parts;  // [2 * programs, COLS]: a block has at most two slices that it shares with others
    int* counts;   // [slices], zero between launches
    int slices;
    int tiles;     // of one slice
    float scale;
};

// A block's part of the line of all tiles, walked slice by slice.
struct Part {
    int64_t at, stop, total;
    int programs;

    __device__ __forceinline__ Part(const Work& work) {
        total = int64_t(work.slices) * work.tiles;
        programs = int(total < gridDim.x ? total : int64_t(gridDim.x));
        at = begin(blockIdx.x);
        stop = int(blockIdx.x) < programs ? begin(blockIdx.x + 1) : at;
    }
    __device__ __forceinline__ int64_t begin(int program) const { return total * program / programs; }
    __device__ __forceinline__ int holder(int64_t tile) const { return int(((tile + 1) * programs - 1) / total); }
};

// A barrier of the threads that compute: the producer warp of TMA_PIPELINED never takes part.
__device__ __forceinline__ void sync() { asm volatile("bar.sync 1, %0;" ::"n"(THREADS) : "memory"); }

// The block's sum over tiles [at, upto) of a slice becomes its output; where blocks share a slice, the last to come adds up what
// all left, in the order of the blocks, so that the result is the same bit for bit.
__device__ void finish(const Work& work, const Part& part, int slice, int64_t at, int64_t upto, const float (&sum)[8], float* shared) {
    const int lane = threadIdx.x % LANES, group = threadIdx.x / LANES;
    sync();
#pragma unroll
    for (int i = 0; i < 8; ++i) shared[group * COLS + lane * 8 + i] = sum[i];
    sync();
    const int64_t first = int64_t(slice) * work.tiles, last = first + work.tiles;
    const bool alone = at == first && upto == last;
    __shared__ bool mine;
    if (threadIdx.x < COLS) {
        float total = 0.0f;
        for (int g = 0; g < ROWS_A_STEP; ++g) total += shared[g * COLS + threadIdx.x];
        if (alone) work.out[int64_t(slice) * COLS + threadIdx.x] = total * work.scale;
        else work.parts[(2 * int64_t(blockIdx.x) + (at == first)) * COLS + threadIdx.x] = total;
        __threadfence();
    }
    sync();
    if (alone) return;
    const int from = part.holder(first), to = part.holder(last - 1);
    if (threadIdx.x == 0) mine = atomicAdd(&work.counts[slice], 1) == to - from;
    sync();
    if (!mine) return;
    __threadfence();
    if (threadIdx.x < COLS) {
        float total = 0.0f;
#pragma unroll 8
        for (int program = from; program <= to; ++program) {
            const int slot = 2 * program + (program == from);  // the first block's part begins with the slice
            total += __ldcg(&work.parts[int64_t(slot) * COLS + threadIdx.x]);
        }
        work.out[int64_t(slice) * COLS + threadIdx.x] = total * work.scale;
    }
    if (threadIdx.x == 0) work.counts[slice] = 0;
}

__device__ __forceinline__ void begin_slice(const Work& work, int slice, float (&query)[8], float (&sum)[8]) {
    const int lane = threadIdx.x % LANES;
    widen(*reinterpret_cast<const uint4*>(work.query + int64_t(slice) * COLS + lane * 8), query);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] = 0.0f;
}

// The rows of a tile in shared memory, half-warp by half-warp.
__device__ __forceinline__ void consume(const char* tile, const float (&query)[8], float (&sum)[8]) {
    const uint4* rows = reinterpret_cast<const uint4*>(tile) + threadIdx.x;
#pragma unroll
    for (int step = 0; step < TILE_ROWS / ROWS_A_STEP; ++step) take(rows[step * THREADS], query, sum);
}

__global__ void __launch_bounds__(THREADS) baseline(Work work) {
    __shared__ alignas(16) char tile[TILE_BYTES];
    __shared__ float shared[ROWS_A_STEP * COLS];
    Part part(work);
    float query[8], sum[8];
    while (part.at < part.stop) {
        const int slice = int(part.at / work.tiles);
        const int64_t last = int64_t(slice + 1) * work.tiles, upto = part.stop < last ? part.stop : last;
        begin_slice(work, slice, query, sum);
        for (int64_t t = part.at; t < upto; ++t) {
            const uint4* source = reinterpret_cast<const uint4*>(work.cache) + t * (TILE_BYTES / 16) + threadIdx.x;
#pragma unroll
            for (int i = 0; i < TILE_BYTES / 16 / THREADS; ++i)
                reinterpret_cast<uint4*>(tile)[threadIdx.x + i * THREADS] = source[i * THREADS];
            __syncthreads();
            consume(tile, query, sum);
            __syncthreads();
        }
        finish(work, part, slice, part.at, upto, sum, shared);
        part.at = upto;
    }
}

__global__ void __launch_bounds__(THREADS) vectorized(Work work) {
    constexpr int UNROLL = 2;  // tiles: eight loads in flight a thread
    constexpr int LOADS = TILE_BYTES / 16 / THREADS;
    __shared__ float shared[ROWS_A_STEP * COLS];
    Part part(work);
    float query[8], sum[8];
    while (part.at < part.stop) {
        const int slice = int(part.at / work.tiles);
        const int64_t last = int64_t(slice + 1) * work.tiles, upto = part.stop < last ? part.stop : last;
        begin_slice(work, slice, query, sum);
        const uint4* source = reinterpret_cast<const uint4*>(work.cache) + threadIdx.x;
        int64_t t = part.at;
        for (; t + UNROLL <= upto; t += UNROLL) {
            uint4 rows[UNROLL * LOADS];
#pragma unroll
            for (int i = 0; i < UNROLL * LOADS; ++i) rows[i] = __ldcs(source + t * (TILE_BYTES / 16) + i * THREADS);
#pragma unroll
            for (int i = 0; i < UNROLL * LOADS; ++i) take(rows[i], query, sum);
        }
        for (; t < upto; ++t)
#pragma unroll
            for (int i = 0; i < LOADS; ++i) take(__ldcs(source + t * (TILE_BYTES / 16) + i * THREADS), query, sum);
        finish(work, part, slice, part.at, upto, sum, shared);
        part.at = upto;
    }
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

__device__ __forceinline__ void next_tile(char* tile, const char* source, uint64_t* full) {
    barrier_expect(full, TILE_BYTES);
    fetch(tile, source, TILE_BYTES, full);
}

__global__ void __launch_bounds__(THREADS) tma(Work work) {
    extern __shared__ __align__(128) char dynamic[];
    __shared__ float shared[ROWS_A_STEP * COLS];
    __shared__ uint64_t full[2];
    Part part(work);
    const int64_t start = part.at;
    const char* source = reinterpret_cast<const char*>(work.cache);
    if (threadIdx.x == 0) {
        barrier_init(&full[0], 1);
        barrier_init(&full[1], 1);
        barriers_ready();
        if (start < part.stop) next_tile(dynamic, source + start * TILE_BYTES, &full[0]);
    }
    __syncthreads();
    float query[8], sum[8];
    while (part.at < part.stop) {
        const int slice = int(part.at / work.tiles);
        const int64_t last = int64_t(slice + 1) * work.tiles, upto = part.stop < last ? part.stop : last;
        begin_slice(work, slice, query, sum);
        for (int64_t t = part.at; t < upto; ++t) {
            const int stage = int((t - start) & 1);
            if (threadIdx.x == 0 && t + 1 < part.stop) next_tile(dynamic + (stage ^ 1) * TILE_BYTES, source + (t + 1) * TILE_BYTES, &full[stage ^ 1]);
            barrier_wait(&full[stage], uint32_t((t - start) >> 1) & 1);
            consume(dynamic + stage * TILE_BYTES, query, sum);
            __syncthreads();  // the stage may be filled again
        }
        finish(work, part, slice, part.at, upto, sum, shared);
        part.at = upto;
    }
}

__global__ void __launch_bounds__(THREADS + 32) tma_pipelined(Work work) {
    extern __shared__ __align__(128) char dynamic[];
    __shared__ float shared[ROWS_A_STEP * COLS];
    __shared__ uint64_t full[STAGES], empty[STAGES];
    Part part(work);
    const int64_t start = part.at;
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; ++stage) {
            barrier_init(&full[stage], 1);
            barrier_init(&empty[stage], WARPS);
        }
        barriers_ready();
    }
    __syncthreads();
    if (threadIdx.x >= THREADS) {  // the producer: one thread keeps the stages full
        const char* source = reinterpret_cast<const char*>(work.cache);
        const uint64_t policy = evict_first();
        for (int64_t t = start; t < part.stop && threadIdx.x == THREADS; ++t) {
            const int stage = int((t - start) % STAGES);
            barrier_wait(&empty[stage], (uint32_t((t - start) / STAGES) & 1) ^ 1);
            barrier_expect(&full[stage], TILE_BYTES);
            fetch(dynamic + stage * TILE_BYTES, source + t * TILE_BYTES, TILE_BYTES, &full[stage], policy);
        }
        return;
    }
    float query[8], sum[8];
    while (part.at < part.stop) {
        const int slice = int(part.at / work.tiles);
        const int64_t last = int64_t(slice + 1) * work.tiles, upto = part.stop < last ? part.stop : last;
        begin_slice(work, slice, query, sum);
        for (int64_t t = part.at; t < upto; ++t) {
            const int stage = int((t - start) % STAGES);
            barrier_wait(&full[stage], uint32_t((t - start) / STAGES) & 1);
            consume(dynamic + stage * TILE_BYTES, query, sum);
            __syncwarp();
            if (threadIdx.x % 32 == 0) barrier_arrive(&empty[stage]);
        }
        finish(work, part, slice, part.at, upto, sum, shared);
        part.at = upto;
    }
}

#else

__global__ void tma(Work) {}
__global__ void tma_pipelined(Work) {}

#endif

struct Kernel {
    void (*function)(Work);
    int threads;
    int dynamic_bytes;
};

Kernel kernel(int variant) {
    switch (variant) {
        case BASELINE: return {baseline, THREADS, 0};
        case VECTORIZED: return {vectorized, THREADS, 0};
        case TMA: return {tma, THREADS, 2 * TILE_BYTES};
        default: return {tma_pipelined, THREADS + 32, STAGES * TILE_BYTES};
    }
}

}  // namespace

// Blocks of a full wave of this variant on the current device: blocks an SM times SMs. Also allows its dynamic shared memory.
extern "C" int moeprof_stream_programs(int variant, int* programs) {
    if (variant < BASELINE || variant > TMA_PIPELINED) return cudaErrorInvalidValue;
    const Kernel chosen = kernel(variant);
    int device = 0, sms = 0, blocks = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (!error) error = cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device);
    if (!error) error = cudaFuncSetAttribute(chosen.function, cudaFuncAttributeMaxDynamicSharedMemorySize, chosen.dynamic_bytes);
    if (!error) error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, chosen.function, chosen.threads, chosen.dynamic_bytes);
    *programs = blocks * sms;
    return error;
}

// Enqueue one reduction. rows: of a slice, a multiple of 64; parts [2 * programs, 128]; counts [slices] zero before and after.
extern "C" int moeprof_stream(int variant, const void* cache, const void* query, void* out, void* parts, void* counts, int slices, int rows,
                              int programs, void* stream) {
    if (variant < BASELINE || variant > TMA_PIPELINED || slices < 1 || rows < 1 || rows % TILE_ROWS || programs < 1) return cudaErrorInvalidValue;
    const Kernel chosen = kernel(variant);
    const Work work = {static_cast<const __nv_bfloat16*>(cache), static_cast<const __nv_bfloat16*>(query), static_cast<float*>(out),
                       static_cast<float*>(parts), static_cast<int*>(counts), slices, rows / TILE_ROWS, 1.0f / float(rows)};
    chosen.function<<<programs, chosen.threads, chosen.dynamic_bytes, static_cast<cudaStream_t>(stream)>>>(work);
    return cudaGetLastError();
}
