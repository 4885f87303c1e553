// The parts of CUDA and cuBLAS that transfg_jt/ops/kernels.cuh uses, emulated on the host. Each thread
// of a block is a fiber. Blocks run one after the other. The warps of a block run one after the
// other up to the next barrier, so that a missing barrier gives wrong results. Reads of unwritten
// shared memory give NaN. Barriers that not all threads reach, and arguments that cuBLAS would
// refuse, throw an exception.
#pragma once
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>
#include <vector>

#define __global__ static
#define __device__ static
#define __shared__

struct Index {
    unsigned x = 0;
};
inline Index threadIdx, blockIdx, gridDim;
inline float memory[48 * 1024 / sizeof(float)];  // the kernels' name for shared memory

namespace device {

enum State { RUNNING, AT_SHUFFLE, AT_BARRIER, DONE };
struct Fiber {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(1 << 16);
    State state = RUNNING;
};
inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline std::function<void()> body;
inline float lanes[1024];

// Leave the running thread until the scheduler resumes it
inline void leave(State state) {
    Fiber& mine = fibers[threadIdx.x];
    mine.state = state;
    swapcontext(&mine.context, &scheduler);
}
inline void begin() {
    body();
    leave(DONE);
}
// Run the threads from `first` to before `last` until they reach a barrier or their end
inline void run_warp(unsigned first, unsigned last) {
    do
        for (unsigned i = first; i < last; i++) {
            threadIdx.x = i;
            swapcontext(&scheduler, &fibers[i].context);
            if (fibers[i].state != fibers[first].state)
                throw std::runtime_error("the threads of a warp part");
        }
    while (fibers[first].state == AT_SHUFFLE);
}
inline void run_block(unsigned threads) {
    if (fibers.size() != threads) fibers = std::vector<Fiber>(threads);
    for (auto& fiber : fibers) {
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        makecontext(&fiber.context, begin, 0);
    }
    do
        for (unsigned first = 0; first < threads; first += 32) {
            run_warp(first, first + 32);
            if (fibers[first].state != fibers[0].state)
                throw std::runtime_error("not all threads of a block come to a barrier");
        }
    while (fibers[0].state != DONE);
}

}  // namespace device

inline void __syncthreads() { device::leave(device::AT_BARRIER); }
inline float __shfl_xor_sync(unsigned mask, float x, int distance) {
    if (mask != 0xffffffffu) throw std::runtime_error("only whole warps");
    device::lanes[threadIdx.x] = x;
    device::leave(device::AT_SHUFFLE);
    const float other = device::lanes[threadIdx.x ^ distance];
    device::leave(device::AT_SHUFFLE);
    return other;
}

template <class... P> struct Launch {
    void (*kernel)(P...);
    int64_t blocks, threads, floats;
    template <class... A> void operator()(A... arguments) const {
        if (blocks < 1 || floats * sizeof(float) > sizeof(memory))
            throw std::runtime_error("a grid or shared memory of a size that no device has");
        device::body = [=, this] { kernel(P(arguments)...); };
        gridDim.x = unsigned(blocks);
        for (int64_t block = 0; block < blocks; block++) {
            blockIdx.x = unsigned(block);
            for (auto& x : memory) x = std::numeric_limits<float>::quiet_NaN();
            device::run_block(unsigned(threads));
            for (int64_t i = floats; i < int64_t(sizeof(memory) / sizeof(float)); i++)
                if (!std::isnan(memory[i])) throw std::runtime_error("written past shared memory");
        }
    }
};
template <class... P>
Launch<P...> make_launch(void (*kernel)(P...), int64_t blocks, int64_t threads, int64_t floats) {
    return {kernel, blocks, threads, floats};
}
#define LAUNCH(kernel, blocks, floats) make_launch(kernel, blocks, THREADS, floats)

struct bfloat16 {
    uint16_t bits;
    bfloat16() = default;
    explicit bfloat16(float x) {
        uint32_t word;
        std::memcpy(&word, &x, 4);
        bits = uint16_t((word + 0x7fff + ((word >> 16) & 1)) >> 16);
    }
    explicit operator float() const {
        const uint32_t word = uint32_t(bits) << 16;
        float x;
        std::memcpy(&x, &word, 4);
        return x;
    }
};

enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T };
enum cublasComputeType_t { CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32 };
enum cudaDataType { CUDA_R_32F, CUDA_R_16BF };
constexpr int CUBLAS_GEMM_DEFAULT = -1;
struct cublasHandle {};

// x rounded to the ten binary digits of TF32
inline double as_tf32(double x) {
    int exponent = 0;
    const double part = std::frexp(x, &exponent);
    return std::ldexp(std::nearbyint(std::ldexp(part, 11)), exponent - 11);
}
// The number at (row, column) of a column-major matrix
inline double at(const void* matrix, cudaDataType kind, int64_t stride, int64_t row, int64_t column) {
    const int64_t where = row + column * stride;
    return kind == CUDA_R_32F ? ((const float*)matrix)[where]
                              : float(((const bfloat16*)matrix)[where]);
}
inline int cublasGemmBatchedEx(cublasHandle, cublasOperation_t ta, cublasOperation_t tb, int m,
                               int n, int k, const float* alpha, const void** a, cudaDataType ka,
                               int lda, const void** b, cudaDataType kb, int ldb,
                               const float* beta, void** c, cudaDataType kc, int ldc, int count,
                               cublasComputeType_t how, int) {
    const bool none = ta == CUBLAS_OP_N, other = tb == CUBLAS_OP_N;
    if (lda < (none ? m : k) || ldb < (other ? k : n) || ldc < m || ka != kb || *beta != 0.f ||
        count < 1 || (kc == CUDA_R_16BF && ka == CUDA_R_32F))
        throw std::runtime_error("cuBLAS would refuse this");
    const bool tf32 = how == CUBLAS_COMPUTE_32F_FAST_TF32;
    for (int p = 0; p < count; p++)
        for (const void* matrix : {a[p], b[p], (const void*)c[p]})
            if ((tf32 || ka == CUDA_R_16BF) && uintptr_t(matrix) % 16)
                throw std::runtime_error("tensor cores need matrices that begin at 16 bytes");
    for (int p = 0; p < count; p++)
        for (int j = 0; j < n; j++)
            for (int i = 0; i < m; i++) {
                double sum = 0;
                for (int l = 0; l < k; l++) {
                    const double x = none ? at(a[p], ka, lda, i, l) : at(a[p], ka, lda, l, i);
                    const double y = other ? at(b[p], kb, ldb, l, j) : at(b[p], kb, ldb, j, l);
                    sum += tf32 ? as_tf32(x) * as_tf32(y) : x * y;
                }
                const float value = float(*alpha * sum);
                if (kc == CUDA_R_32F)
                    ((float*)c[p])[i + j * int64_t(ldc)] = value;
                else
                    ((bfloat16*)c[p])[i + j * int64_t(ldc)] = bfloat16(value);
            }
    return 0;
}
inline int cudaGetLastError() { return 0; }
inline void checkCudaErrors(int error) {
    if (error) throw std::runtime_error("an error");
}

namespace jittor {
inline cublasHandle cublas_handle;
inline int use_tensorcore = 0;
}  // namespace jittor
