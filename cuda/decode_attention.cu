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

__device__ __forceinline__ uint32_t address(const void* shared) { return uint32_t(__cvta_generic_to_shared(shared)); }

__device__ __forceinline__ void sync_consumers() { asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS) : "memory"); }

__device__ __forceinline__ void barrier_init(uint64_t* barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address(barrier)), "r"(arrivals));
}

__device__ __forceinline__ void barrier_arrive(uint64_t* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address(barrier)) : "memory");
}

__device__ __forceinline__ void barrier_expect(uint64_t* barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address(barrier)), "r"(bytes) : "memory");
}

__device__ __forceinline__ void barrier_wait(uint64_t* barrier, uint32_t parity) {
    asm volatile(
        "{\n.reg .pred done;\nwaiting:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra.uni waiting;\n}" ::"r"(address(barrier)), "r"(parity) : "memory");
}

__device__ __forceinline__ void fetch(void* tile, const void* source, int bytes, uint64_t* full, uint64_t policy) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(address(tile)),
        "l"(source), "r"(bytes), "r"(address(full)), "l"(policy) : "memory");
}

__device__ __forceinline__ uint64_t evict_first() {
    uint64_t policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

// c [16, 8] += a [16, 16] b [16, 8]
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32_t pack(float low, float high) {
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

__device__ __forceinline__ float power(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

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

// Inclusive scan of the sequences' tiles times heads, by one warp.
__device__ void scan_lengths(const Work& work, int* ends) {
    const int lane = threadIdx.x % 32;
    int carried = 0;
    for (int base = 0; base < work.batch; base += 32) {
        const int i = base + lane;
        int value = i < work.batch ? (work.lengths[i] + KEYS - 1) / KEYS * work.heads : 0;
#pragma unroll
        for (int apart = 1; apart < 32; apart *= 2) {
            const int other = __shfl_up_sync(0xffffffffu, value, apart);
            if (lane >= apart) value += other;
        }
        if (i < work.batch) ends[i] = carried + value;
        carried += __shfl_sync(0xffffffffu, value, 31);
    }
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

// Merge the four warps into ``sums`` [ROWS, D] and ``merged`` [2, ROWS] in shared memory, warp after warp.
template <int D>
__device__ void merge(State<D>& state, float* sums, float* merged) {
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, j = threadIdx.x % 4;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
        state.weight[row] += __shfl_xor_sync(0xffffffffu, state.weight[row], 1);
        state.weight[row] += __shfl_xor_sync(0xffffffffu, state.weight[row], 2);
    }
    for (int turn = 0; turn < WARPS; ++turn) {
        sync_consumers();
        if (warp != turn) continue;
#pragma unroll
        for (int row = 0; row < 2; ++row) {
            const int r = g + 8 * row;
            const float before = turn ? merged[r] : -INFINITY, most = fmaxf(before, state.most[row]);
            const float theirs = before == -INFINITY ? 0.0f : power(before - most), own = state.most[row] == -INFINITY ? 0.0f : power(state.most[row] - most);
            __syncwarp();
            if (j == 0) {
                merged[r] = most;
                merged[ROWS + r] = (turn ? merged[ROWS + r] * theirs : 0.0f) + state.weight[row] * own;
            }
#pragma unroll
            for (int n = 0; n < D / 8; ++n)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    float* cell = &sums[r * D + column<D>(n, e, j)];
                    *cell = (turn ? *cell * theirs : 0.0f) + state.acc[n][2 * row + e] * own;
                }
        }
    }
    sync_consumers();
}

// Write the unit's output, or leave this part of it and, as the last to come, add up all parts.
template <int D>
__device__ void finish(const Work& work, const Line& line, const Unit& unit, int64_t at, int64_t upto, State<D>& state, float* sums, float* merged) {
    merge<D>(state, sums, merged);
    const int64_t first = unit.first, last = first + unit.tiles;
    const int index = unit.sequence * work.heads + unit.head;
    __nv_bfloat16* out = work.out + int64_t(index) * work.group * D;
    if (at == first && upto == last) {
        for (int i = threadIdx.x; i < work.group * D; i += CONSUMERS) out[i] = __float2bfloat16(sums[i] / merged[ROWS + i / D]);
        sync_consumers();
        return;
    }
    const int64_t slot = 2 * int64_t(blockIdx.x) + (at == first);
    for (int i = threadIdx.x; i < work.group * D; i += CONSUMERS) work.parts[slot * ROWS * D + i] = sums[i];
    if (threadIdx.x < 2 * ROWS) work.stats[slot * 2 * ROWS + threadIdx.x] = merged[threadIdx.x];
    __threadfence();
    sync_consumers();
    __shared__ bool mine;
    const int from = line.holder(first), to = line.holder(last - 1);
    if (threadIdx.x == 0) mine = atomicAdd(&work.counts[index], 1) == to - from;
    sync_consumers();
    if (mine) {
        __threadfence();
        for (int i = threadIdx.x; i < work.group * D; i += CONSUMERS) {
            float most = -INFINITY, weight = 0.0f, sum = 0.0f;
            for (int program = from; program <= to; ++program) {
                const int64_t theirs = 2 * int64_t(program) + (line.begin(program) <= first);
                const float their_most = __ldcg(&work.stats[theirs * 2 * ROWS + i / D]), newest = fmaxf(most, their_most);
                const float keep = most == -INFINITY ? 0.0f : power(most - newest), add = power(their_most - newest);
                weight = weight * keep + __ldcg(&work.stats[theirs * 2 * ROWS + ROWS + i / D]) * add;
                sum = sum * keep + __ldcg(&work.parts[theirs * ROWS * D + i]) * add;
                most = newest;
            }
            out[i] = __float2bfloat16(sum / weight);
        }
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
    __shared__ float sums[ROWS * D], merged[2 * ROWS];
    __shared__ uint64_t full[STAGES], empty[STAGES];
    __shared__ int ends[MAX_BATCH];
    if (threadIdx.x < 32) scan_lengths(work, ends);
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; ++stage) {
            barrier_init(&full[stage], 1);
            barrier_init(&empty[stage], WARPS);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
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
        finish<D>(work, line, unit, begun, upto, state, sums, merged);
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
