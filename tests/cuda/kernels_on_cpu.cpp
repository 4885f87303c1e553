// C functions that run the kernels of transfg_jt/ops/kernels.cuh on the host.
#include "cublas_wrapper.h"
#include "kernels.cuh"

#include <string>

namespace {
struct Sizes {
    int64_t images, tokens, width, heads, held, stride, arrays, tf32;
};
Attention make(const Sizes& s, void** table) {
    return {s.images, s.tokens, s.width, s.heads, s.held, s.stride,
            s.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, (char**)table, s.arrays};
}
template <class F> const char* guarded(F work) {
    static std::string message;
    try {
        work();
        return nullptr;
    } catch (const std::exception& error) {
        message = error.what();
        return message.c_str();
    }
}
}  // namespace

#define ATTENTION(T, NAME)                                                                        \
    extern "C" const char* forward_##NAME(const Sizes& s, T** x, float* maps, void** table) {     \
        return guarded([&] { make(s, table).forward(x[0], x[1], x[2], x[3], maps); });            \
    }                                                                                             \
    extern "C" const char* backward_##NAME(const Sizes& s, T** x, float* maps, void** table) {    \
        return guarded([&] {                                                                      \
            make(s, table).backward(x[0], x[1], x[2], x[3], x[4], x[5], x[6], maps);              \
        });                                                                                       \
    }                                                                                             \
    extern "C" const char* propagate_##NAME(const Sizes& s, T** x, float* maps, void** table) {   \
        return guarded([&] {                                                                      \
            make(s, table).propagate(x[0], x[1], (float*)x[2], (float*)x[3], maps);               \
        });                                                                                       \
    }
ATTENTION(float, float32)
ATTENTION(bfloat16, bfloat16)

extern "C" const char* norm(int64_t rows, int n, float eps, float** x) {
    return guarded([&] {
        LAUNCH(norm_rows, rows, WARPS + n)(x[0], x[1], x[2], x[3], x[4], x[5], n, eps);
    });
}
extern "C" const char* norm_grad(int64_t rows, int n, int64_t blocks, float** x) {
    return guarded([&] {
        LAUNCH(norm_rows_grad, blocks, WARPS + 4 * n)
        (x[0], x[1], x[2], x[3], x[4], x[5], x[8], rows, n);
        LAUNCH(sum_columns, (2 * n + THREADS - 1) / THREADS, 0)(x[8], x[6], x[7], blocks, n);
    });
}
extern "C" const char* products(int64_t rows, int64_t n, double** x) {
    return guarded([&] {
        LAUNCH(inner_products, (rows * rows + THREADS - 1) / THREADS, 0)(x[0], x[2], rows, n);
        LAUNCH(inner_products_grad, (rows * n + THREADS - 1) / THREADS, 0)
        (x[0], x[1], x[3], rows, n);
    });
}
