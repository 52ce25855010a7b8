// Decode attention with grouped queries in one pass over a contiguous KV cache, for sm_90 and later.
//
//   q [B, HKV * G, D] bf16, k and v [B, HKV, capacity, D] bf16, lengths [B] int32, out [B, HKV * G, D] bf16; D 64 or 128, G <= 16
//
// One version, SPLIT_KV. The line of all tiles (64 keys of one sequence and kv head) is cut into equal parts, one a block. A producer
// warp keeps three tiles of keys and values on their way (cp.async.bulk, evicted first from L2); four warps take 16 keys of a tile each,
// all heads of the group at once (mma.m16n8k16), with a softmax of their own, so that nothing waits for another warp inside a part. They
// merge when a part ends; where blocks share a sequence and head, the last to come adds up what all left, in the order of the blocks.
//
// A tile lies in shared memory as it lies in the cache. Threads read 16 bytes at a time and let the tensor cores see the columns in the
// order in which they hold them: sums over d do not mind, and the columns of the output are put back when they are written.

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include "bulk_copy.cuh"
#include "decode_tile.cuh"
#include "pieces.cuh"

namespace {

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

// Where a block's part of the line begins and ends, and which (sequence, kv head) a tile belongs to.
struct Line {
    const int* ends;  // [batch]: tiles of all sequences up to and with this one, times heads
    int64_t total;
    int programs;

    __device__ __forceinline__ int64_t begin(int program) const { return total * program / programs; }
    __device__ __forceinline__ int holder(int64_t tile) const { return int(((tile + 1) * programs - 1) / total); }
};

struct Unit {
    int sequence, head, length, first, tiles;

    __device__ Unit(const Work& work, const Line& line, int64_t at) {
        int low = 0, high = work.batch - 1;  // the first sequence that ends beyond the tile
        while (low < high) {
            const int middle = (low + high) / 2;
            if (line.ends[middle] > at) high = middle;
            else low = middle + 1;
        }
        sequence = low;
        length = work.lengths[low];
        tiles = (length + KEYS - 1) / KEYS;
        const int begin = line.ends[low] - tiles * work.heads;
        head = int(at - begin) / tiles;
        first = begin + head * tiles;
    }
};

// Add up what blocks ``from`` to ``to`` left of a unit: each row's statistics by one warp, then all columns, eight parts in flight. The
// first block's part begins with the unit.
template <int D>
__device__ void gather(const Work& work, int from, int to, float* merged, __nv_bfloat16* out) {
    const int lane = threadIdx.x % 32;
    for (int r = threadIdx.x / 32; r < work.group; r += WARPS) {
        float most = -INFINITY, weight = 0.0f;
        for (int program = from + lane; program <= to; program += 32) {
            const float* stats = work.stats + (2 * int64_t(program) + (program == from)) * 2 * ROWS + r;
            const float theirs = __ldcg(stats), newest = fmaxf(most, theirs);
            weight = weight * (most == -INFINITY ? 0.0f : power(most - newest)) + __ldcg(stats + ROWS) * power(theirs - newest);
            most = newest;
        }
        float top = most;
#pragma unroll
        for (int apart = 16; apart; apart /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, apart));
        weight = most == -INFINITY ? 0.0f : weight * power(most - top);
#pragma unroll
        for (int apart = 16; apart; apart /= 2) weight += __shfl_xor_sync(0xffffffffu, weight, apart);
        if (lane == 0) {
            merged[r] = top;
            merged[ROWS + r] = weight;
        }
    }
    sync_consumers();
    for (int i = 4 * threadIdx.x; i < work.group * D; i += 4 * CONSUMERS) {
        const float top = merged[i / D], share = 1.0f / merged[ROWS + i / D];
        float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 8
        for (int program = from; program <= to; ++program) {
            const int64_t slot = 2 * int64_t(program) + (program == from);
            const float factor = power(__ldcg(&work.stats[slot * 2 * ROWS + i / D]) - top);
            const float4 part = __ldcg(reinterpret_cast<const float4*>(&work.parts[slot * ROWS * D + i]));
            sum.x += part.x * factor, sum.y += part.y * factor, sum.z += part.z * factor, sum.w += part.w * factor;
        }
        *reinterpret_cast<uint2*>(&out[i]) = {pack(sum.x * share, sum.y * share), pack(sum.z * share, sum.w * share)};
    }
}

// Write the unit's output, or leave this part of it and, as the last to come, add up all parts.
template <int D>
__device__ void finish(const Work& work, const Line& line, const Unit& unit, int64_t at, int64_t upto, State<D>& state, float* sums, float* merged,
                       float* warps) {
    merge<D>(state, work.group, sums, merged, warps);
    const int64_t first = unit.first, last = first + unit.tiles;
    const int index = unit.sequence * work.heads + unit.head;
    __nv_bfloat16* out = work.out + int64_t(index) * work.group * D;
    if (at == first && upto == last) {
        for (int i = threadIdx.x; i < work.group * D; i += CONSUMERS) out[i] = __float2bfloat16(sums[Sums<D>::cell(i / D, i % D)] / merged[ROWS + i / D]);
        sync_consumers();
        return;
    }
    const int64_t slot = 2 * int64_t(blockIdx.x) + (at == first);
    for (int i = threadIdx.x; i < work.group * D; i += CONSUMERS) work.parts[slot * ROWS * D + i] = sums[Sums<D>::cell(i / D, i % D)];
    if (threadIdx.x < 2 * ROWS) work.stats[slot * 2 * ROWS + threadIdx.x] = merged[threadIdx.x];
    __threadfence();
    sync_consumers();
    __shared__ bool mine;
    const int from = line.holder(first), to = line.holder(last - 1);
    if (threadIdx.x == 0) mine = atomicAdd(&work.counts[index], 1) == to - from;
    sync_consumers();
    if (mine) {
        __threadfence();
        gather<D>(work, from, to, merged, out);
        if (threadIdx.x == 0) work.counts[index] = 0;
    }
    sync_consumers();
}

template <int D>
__device__ void produce(const Work& work, const Line& line, int64_t at, int64_t stop, char* tiles, uint64_t* full, uint64_t* empty) {
    constexpr int BYTES = KEYS * D * 2;
    const uint64_t policy = evict_first();
    for (int step = 0; at < stop;) {
        const Unit unit(work, line, at);
        const int64_t row = (int64_t(unit.sequence) * work.heads + unit.head) * work.capacity + (at - unit.first) * KEYS;
        const int64_t upto = stop < unit.first + unit.tiles ? stop : unit.first + unit.tiles;
        for (int64_t done = 0; at < upto; ++at, ++step, ++done) {
            const int stage = step % STAGES;
            barrier_wait(&empty[stage], (uint32_t(step / STAGES) & 1) ^ 1);
            barrier_expect(&full[stage], 2 * BYTES);
            fetch(tiles + stage * 2 * BYTES, work.k + (row + done * KEYS) * D, BYTES, &full[stage], policy);
            fetch(tiles + stage * 2 * BYTES + BYTES, work.v + (row + done * KEYS) * D, BYTES, &full[stage], policy);
        }
    }
}

template <int D>
__global__ void __launch_bounds__(THREADS, 2) split_kv(Work work) {
    extern __shared__ __align__(128) char tiles[];
    __shared__ float sums[Sums<D>::SIZE], merged[2 * ROWS], warps[WARPS * 2 * ROWS];
    __shared__ uint64_t full[STAGES], empty[STAGES];
    __shared__ int ends[MAX_BATCH];
    if (threadIdx.x < 32) scan_tiles(threadIdx.x % 32, work.lengths, work.batch, KEYS, work.heads, ends);
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; ++stage) {
            barrier_init(&full[stage], 1);
            barrier_init(&empty[stage], WARPS);
        }
        barriers_ready();
    }
    __syncthreads();
    Line line = {ends, ends[work.batch - 1], 0};
    line.programs = int(line.total < gridDim.x ? line.total : int64_t(gridDim.x));
    if (int(blockIdx.x) >= line.programs) return;
    int64_t at = line.begin(blockIdx.x);
    const int64_t stop = line.begin(blockIdx.x + 1);
    if (threadIdx.x >= CONSUMERS) {
        if (threadIdx.x == CONSUMERS) produce<D>(work, line, at, stop, tiles, full, empty);
        return;
    }
    constexpr int BYTES = KEYS * D * 2;
    const int base = threadIdx.x / 32 * (KEYS / WARPS);
    State<D> state;
    uint32_t q[D / 16][4];
    for (int step = 0; at < stop;) {
        const Unit unit(work, line, at);
        const int64_t begun = at, upto = stop < unit.first + unit.tiles ? stop : unit.first + unit.tiles;
        load_query<D>(work, unit.sequence * work.heads + unit.head, q);
        state.clear();
        for (; at < upto; ++at, ++step) {
            const int stage = step % STAGES, left = unit.length - int(at - unit.first) * KEYS;
            const uint4* k = reinterpret_cast<const uint4*>(tiles + stage * 2 * BYTES);
            const uint4* v = reinterpret_cast<const uint4*>(tiles + stage * 2 * BYTES + BYTES);
            barrier_wait(&full[stage], uint32_t(step / STAGES) & 1);
            if (left >= KEYS) attend<D, false>(k, v, base, left, work.scale, q, state);
            else attend<D, true>(k, v, base, left, work.scale, q, state);
            __syncwarp();
            if (threadIdx.x % 32 == 0) barrier_arrive(&empty[stage]);
        }
        finish<D>(work, line, unit, begun, upto, state, sums, merged, warps);
    }
}

#else

template <int D>
__global__ void split_kv(Work) {}

#endif

using Function = void (*)(Work);

Function kernel(int width) { return width == 128 ? Function(split_kv<128>) : width == 64 ? Function(split_kv<64>) : nullptr; }

int dynamic_bytes(int width) { return STAGES * 2 * KEYS * width * 2; }

}  // namespace

// Blocks of a full wave on the current device: blocks an SM times SMs. Also allows the kernel's dynamic shared memory.
extern "C" int moeprof_decode_programs(int width, int* programs) {
    const Function chosen = kernel(width);
    if (!chosen) return cudaErrorInvalidValue;
    int device = 0, sms = 0, blocks = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (!error) error = cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device);
    if (!error) error = cudaFuncSetAttribute(chosen, cudaFuncAttributeMaxDynamicSharedMemorySize, dynamic_bytes(width));
    if (!error) error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, chosen, THREADS, dynamic_bytes(width));
    *programs = blocks * sms;
    return error;
}

// Enqueue one decode step. capacity: rows of a cache, a multiple of 64 and at least every length; parts [2 * programs, 16, width];
// stats [2 * programs, 2, 16]; counts [batch * heads] zero before and after; scale includes log2(e).
extern "C" int moeprof_decode(const void* q, const void* k, const void* v, const void* lengths, void* out, void* parts, void* stats, void* counts,
                              int batch, int heads, int group, int capacity, int width, float scale, int programs, void* stream) {
    const Function chosen = kernel(width);
    if (!chosen || batch < 1 || batch > MAX_BATCH || heads < 1 || group < 1 || group > ROWS || capacity % KEYS || programs < 1) return cudaErrorInvalidValue;
    const Work work = {static_cast<const __nv_bfloat16*>(q), static_cast<const __nv_bfloat16*>(k), static_cast<const __nv_bfloat16*>(v),
                       static_cast<const int*>(lengths), static_cast<__nv_bfloat16*>(out), static_cast<float*>(parts), static_cast<float*>(stats),
                       static_cast<int*>(counts), batch, heads, group, capacity, scale};
    chosen<<<programs, THREADS, dynamic_bytes(width), static_cast<cudaStream_t>(stream)>>>(work);
    return cudaGetLastError();
}
