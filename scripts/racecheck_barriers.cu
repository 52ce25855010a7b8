// What compute-sanitizer's racecheck makes of data that one warpgroup hands to another over a named barrier.
//
//   nvcc -arch=sm_90 -lineinfo -DHANDOVER=N -o handover scripts/racecheck_barriers.cu && compute-sanitizer --tool racecheck ./handover
//
// N = 0: over none, a race; 1: the writers bar.arrive and go on, the readers bar.sync; 2: both bar.sync. 1 and 2 are free of races.
#include <cstdio>

__global__ void __launch_bounds__(256) hand_over(float* out, int rounds) {
    __shared__ float box[128];
    const bool writes = threadIdx.x < 128;
    float seen = 0;
    for (int i = 0; i < rounds; ++i) {
        if (writes) {
            box[threadIdx.x] = i;
#if HANDOVER == 1
            asm volatile("bar.arrive 1, 256;" ::: "memory");
#elif HANDOVER == 2
            asm volatile("bar.sync 1, 256;" ::: "memory");
#endif
        } else {
#if HANDOVER
            asm volatile("bar.sync 1, 256;" ::: "memory");
#endif
            seen += box[255 - threadIdx.x];
        }
        __syncthreads();
    }
    out[threadIdx.x] = seen;
}

int main() {
    float* out;
    cudaMalloc(&out, 256 * sizeof(float));
    hand_over<<<4, 256>>>(out, 5);
    std::printf("%s\n", cudaGetErrorString(cudaDeviceSynchronize()));
}
