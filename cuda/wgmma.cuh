// Warpgroup products of the tensor cores (wgmma, sm_90a), what they read, and how warps meet: for latent_attention.cu.
//
// Tiles in shared memory are columns of 64 bf16 (128 bytes), a row after the other, begin at 1024 bytes, and are swizzled as the copy engine
// does it with SWIZZLE_128B: the 16-byte piece c of row r lies at r * 128 + ((c ^ r % 8) * 16).
#pragma once

#include <cuda.h>
#include <stdint.h>

#include "bulk_copy.cuh"

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int TILE_ROW = 128;        // bytes of a row of a tile
constexpr int TILE = 64 * TILE_ROW;  // 64 rows

// A descriptor of a tile at ``tile``: 8 rows are 1024 bytes. Read along its rows (``apart`` is of no matter), or along its columns: then
// more columns follow ``apart`` bytes further on.
__device__ __forceinline__ uint64_t described(const void* tile, uint32_t apart = 16) {
    const uint64_t swizzle_128 = uint64_t(1) << 62;
    return swizzle_128 | uint64_t(1024 / 16) << 32 | uint64_t(apart / 16) << 16 | (address(tile) & 0x3ffff) / 16;
}

__device__ __forceinline__ uint32_t piece(int row, int column) { return row * TILE_ROW + ((column ^ (row % 8)) * 16); }

__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_end() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Wait until at most ``LEFT`` groups of products are under way.
template <int LEFT>
__device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

#define F4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define F16(d, i) F4(d, i), F4(d, i + 4), F4(d, i + 8), F4(d, i + 12)
#define F32(d, i) F16(d, i), F16(d, i + 16)
#define F128(d) F32(d, 0), F32(d, 32), F32(d, 64), F32(d, 96)
#define REGISTERS_32 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"
#define REGISTERS_128 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
    "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, " \
    "%72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, " \
    "%120, %121, %122, %123, %124, %125, %126, %127}"

// d [64, 64] = a [64, 16] b [64, 16]^T, + d where ``add``; both along their rows in shared memory.
__device__ __forceinline__ void product(float (&d)[32], uint64_t a, uint64_t b, bool add) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " REGISTERS_32 ", %32, %33, add, 1, 1, 0, 0;\n}"
        : F32(d, 0) : "l"(a), "l"(b), "r"(int(add)));
}

// d [64, 64] += a [64, 16] b [64, 16]^T, a in registers.
__device__ __forceinline__ void product(float (&d)[32], const uint32_t* a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " REGISTERS_32 ", {%32, %33, %34, %35}, %36, 1, 1, 1, 0;"
                 : F32(d, 0) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// d [64, 256] += a [64, 16] b [16, 256]; b along its columns in shared memory, a in registers.
__device__ __forceinline__ void product(float (&d)[128], const uint32_t* a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 " REGISTERS_128 ", {%128, %129, %130, %131}, %132, 1, 1, 1, 1;"
                 : F128(d) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// The same with a along its rows in shared memory.
__device__ __forceinline__ void product(float (&d)[128], uint64_t a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 " REGISTERS_128 ", %128, %129, 1, 1, 1, 0, 1;"
                 : F128(d) : "l"(a), "l"(b));
}

// Four 8 x 8 pieces of a tile, as a product takes 16 rows and 16 columns from registers; each lane names one row of one piece.
__device__ __forceinline__ void store_pieces(uint32_t at, const uint32_t* a) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]) : "memory");
}

__device__ __forceinline__ void load_pieces(uint32_t at, uint32_t* a) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(at) : "memory");
}

// What this thread wrote to shared memory is seen by products and by the copy engine.
__device__ __forceinline__ void written() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Named barriers of ``THREADS`` threads: all that meet wait, or some only arrive.
template <int THREADS>
__device__ __forceinline__ void meet(int barrier) {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(THREADS) : "memory");
}

template <int THREADS>
__device__ __forceinline__ void tell(int barrier) {
    asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "n"(THREADS) : "memory");
}

// A tile of 64 rows from ``row`` and 64 columns from ``column`` of a matrix; the barrier counts its bytes.
__device__ __forceinline__ void fetch_tile(void* tile, const CUtensorMap* matrix, int column, int row, uint64_t* full) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(address(tile)),
                 "l"(matrix), "r"(column), "r"(row), "r"(address(full)) : "memory");
}

#endif
