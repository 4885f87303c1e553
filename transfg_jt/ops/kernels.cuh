// Attention, layer norm and inner products on CUDA; cuda.py passes this text to Jittor with each operator.
//
// Attention multiplies with cuBLAS, for as many (image, head) pairs at a time as the scratch memory
// holds maps, and changes a map's rows in place. No result depends on the order in which blocks
// run, so results repeat bit for bit.
//
// B images, K heads, T tokens, D width, d = D / K; Q, K, V and O are (B, T, D), heads side by side.

#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <cublas_v2.h>
#include "cublas_wrapper.h"

#ifndef LAUNCH
#define LAUNCH(kernel, blocks, floats) kernel<<<(blocks), THREADS, (floats) * sizeof(float)>>>
#endif

namespace jittor {
extern int use_tensorcore;
}

extern __shared__ float memory[];  // of a block; LAUNCH sets its size

namespace {

constexpr int THREADS = 128, WARPS = THREADS / 32;

// The sum (or the maximum) of x over the threads of a block; `part` has WARPS floats
template <bool MAXIMUM> __device__ float over_block(float x, float* part) {
    for (int d = 16; d; d /= 2) {
        const float y = __shfl_xor_sync(0xffffffffu, x, d);
        x = MAXIMUM ? fmaxf(x, y) : x + y;
    }
    __syncthreads();  // every thread has read the old contents of `part`
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    x = part[0];
    for (int w = 1; w < WARPS; w++) x = MAXIMUM ? fmaxf(x, part[w]) : x + part[w];
    return x;
}

// From the n scores of a row: row = exp((score - largest) * scale); returns 1 / sum.
// Here and below a thread reads and writes only its own elements of `row`.
__device__ float exponentials(const float* scores, float* row, float* part, int n, float scale) {
    float top = -INFINITY, sum = 0.f;
    for (int j = threadIdx.x; j < n; j += THREADS) top = fmaxf(top, row[j] = scores[j]);
    top = over_block<true>(top, part);
    for (int j = threadIdx.x; j < n; j += THREADS) sum += row[j] = expf((row[j] - top) * scale);
    return 1.f / over_block<false>(sum, part);
}

// A row of a map, in place: float32 scores become softmax(scores * scale) of type T
template <class T> __global__ void softmax_rows(float* maps, int n, int64_t stride, float scale) {
    float *part = memory, *row = memory + WARPS, *scores = maps + blockIdx.x * stride;
    const float inverse = exponentials(scores, row, part, n, scale);
    T* out = reinterpret_cast<T*>(scores);
    for (int j = threadIdx.x; j < n; j += THREADS) out[j] = T(row[j] * inverse);
}

// The same, p = softmax(scores * scale); and the gradient g of p becomes the gradient of the
// scores, p (g - sum_j g p) scale
template <class T>
__global__ void softmax_rows_grad(float* maps, float* grads, int n, int64_t stride, float scale) {
    float *part = memory, *row = memory + WARPS, *g = row + n;
    float *scores = maps + blockIdx.x * stride, *grad = grads + blockIdx.x * stride;
    const float inverse = exponentials(scores, row, part, n, scale);
    float sum = 0.f;
    for (int j = threadIdx.x; j < n; j += THREADS) {
        row[j] *= inverse;
        sum += row[j] * (g[j] = grad[j]);
    }
    const float dot = over_block<false>(sum, part);
    T *p = reinterpret_cast<T*>(scores), *ds = reinterpret_cast<T*>(grad);
    for (int j = threadIdx.x; j < n; j += THREADS) {
        p[j] = T(row[j]);
        ds[j] = T(row[j] * (g[j] - dot) * scale);
    }
}

// at[p] = from + p / group * outer + p % group * inner, in bytes
__global__ void point(char** at, char* from, int64_t count, int64_t group, int64_t outer,
                      int64_t inner) {
    const int64_t p = blockIdx.x * int64_t(THREADS) + threadIdx.x;
    if (p < count) at[p] = from + p / group * outer + p % group * inner;
}

// A row-major matrix for each (image, head): their addresses, and the stride of their rows
template <class T> struct Matrices {
    char** at;
    int64_t stride;
    Matrices from(int64_t pair) const { return {at + pair, stride}; }
};

struct Attention {
    int64_t images, tokens, width, heads, held, stride;  // `held` maps at a time, their row stride
    cublasComputeType_t how;
    char** table;  // pointers on the device: one for each pair and each of `arrays`
    int64_t arrays;
    int64_t pairs = images * heads, d = width / heads;
    float scale = 1.f / std::sqrt(float(d));

    // The (T, d) matrices of an array (B, T, D), or the (1, T) matrices of an array (B, K, T)
    template <class T> Matrices<T> heads_of(T* array) {
        return point_at<T>(array, heads, tokens * width * sizeof(T), d * sizeof(T), width);
    }
    template <class T> Matrices<T> rows_of(T* array) {
        return point_at<T>(array, pairs, 0, tokens * sizeof(T), tokens);
    }
    // Maps (T, T) with room for float32; every group of pairs uses the same ones
    template <class T> Matrices<T> maps_in(float* scratch) {
        const int64_t row = stride * sizeof(float);
        return point_at<T>(scratch, held, 0, tokens * row, row / sizeof(T));
    }
    template <class T, class A>
    Matrices<T> point_at(A* from, int64_t group, int64_t outer, int64_t inner, int64_t row) {
        if (arrays-- == 0) throw std::logic_error("too few tables of pointers");
        char** at = table;
        table += pairs;
        LAUNCH(point, (pairs + THREADS - 1) / THREADS, 0)
        (at, reinterpret_cast<char*>(from), pairs, group, outer, inner);
        return {at, row};
    }
    // c (m, n) = a (m, k) b (k, n), each factor optionally transposed first. cuBLAS is
    // column-major, so it computes cᵀ = bᵀ aᵀ.
    template <class T, class R>
    void multiply(Matrices<T> a, bool a_transposed, Matrices<T> b, bool b_transposed,
                  Matrices<R> c, int64_t m, int64_t n, int64_t k, int64_t count) {
        const float one = 1.f, zero = 0.f;
        const auto kind = [](size_t bytes) { return bytes == 4 ? CUDA_R_32F : CUDA_R_16BF; };
        checkCudaErrors(cublasGemmBatchedEx(
            jittor::cublas_handle, b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
            a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, int(n), int(m), int(k), &one,
            (const void**)b.at, kind(sizeof(T)), int(b.stride), (const void**)a.at,
            kind(sizeof(T)), int(a.stride), &zero, (void**)c.at, kind(sizeof(R)), int(c.stride),
            int(count), how, CUBLAS_GEMM_DEFAULT));
    }
    template <class F> void each_group(F work) {
        for (int64_t pair = 0; pair < pairs; pair += held)
            work(pair, pairs - pair < held ? pairs - pair : held);
        checkCudaErrors(cudaGetLastError());
    }

    // out = softmax(q kᵀ scale) v
    template <class T> void forward(T* q, T* k, T* v, T* out, float* maps) {
        const auto Q = heads_of(q), K = heads_of(k), V = heads_of(v), O = heads_of(out);
        const auto S = maps_in<float>(maps);
        const auto P = maps_in<T>(maps);
        each_group([&](int64_t i, int64_t count) {
            multiply(Q.from(i), false, K.from(i), true, S, tokens, tokens, d, count);
            LAUNCH(softmax_rows<T>, count * tokens, WARPS + tokens)
            (maps, int(tokens), stride, scale);
            multiply(P, false, V.from(i), false, O.from(i), tokens, d, tokens, count);
        });
    }

    // With P = softmax(S), S = q kᵀ scale and g the gradient of the output:
    // dv = Pᵀ g, dP = g vᵀ, dS = P (dP - sum_j dP P) scale, dq = dS k, dk = dSᵀ q
    template <class T>
    void backward(T* q, T* k, T* v, T* g, T* dq, T* dk, T* dv, float* maps) {
        float* grads = maps + held * tokens * stride;
        const auto Q = heads_of(q), K = heads_of(k), V = heads_of(v), G = heads_of(g);
        const auto DQ = heads_of(dq), DK = heads_of(dk), DV = heads_of(dv);
        const auto S = maps_in<float>(maps), DP = maps_in<float>(grads);
        const auto P = maps_in<T>(maps), DS = maps_in<T>(grads);
        each_group([&](int64_t i, int64_t count) {
            multiply(Q.from(i), false, K.from(i), true, S, tokens, tokens, d, count);
            multiply(G.from(i), false, V.from(i), true, DP, tokens, tokens, d, count);
            LAUNCH(softmax_rows_grad<T>, count * tokens, WARPS + 2 * tokens)
            (maps, grads, int(tokens), stride, scale);
            multiply(P, true, G.from(i), false, DV.from(i), tokens, d, tokens, count);
            multiply(DS, false, K.from(i), false, DQ.from(i), tokens, d, tokens, count);
            multiply(DS, true, Q.from(i), false, DK.from(i), tokens, d, tokens, count);
        });
    }

    // out (B, K, T) = row (B, K, T) softmax(q kᵀ scale) per head; the map and its product with
    // the row are in float32 for every type of q and k
    template <class T> void propagate(T* q, T* k, float* row, float* out, float* maps) {
        const auto Q = heads_of(q), K = heads_of(k);
        const auto R = rows_of(row), O = rows_of(out), P = maps_in<float>(maps);
        each_group([&](int64_t i, int64_t count) {
            multiply(Q.from(i), false, K.from(i), true, P, tokens, tokens, d, count);
            LAUNCH(softmax_rows<float>, count * tokens, WARPS + tokens)
            (maps, int(tokens), stride, scale);
            const auto asked = how;
            how = CUBLAS_COMPUTE_32F;
            multiply(R.from(i), false, P, false, O.from(i), 1, tokens, tokens, count);
            how = asked;
        });
    }
};

// Layer norm of a row: (x - mean) / sqrt(variance + eps) * weight + bias, the variance in a second
// pass; mean and 1 / sqrt(...) are outputs as well
__global__ void norm_rows(const float* in, const float* weight, const float* bias, float* out,
                          float* means, float* scales, int n, float eps) {
    float *part = memory, *row = memory + WARPS, sum = 0.f, squares = 0.f;
    const int64_t start = blockIdx.x * int64_t(n);
    for (int j = threadIdx.x; j < n; j += THREADS) sum += row[j] = in[start + j];
    const float mean = over_block<false>(sum, part) / n;
    for (int j = threadIdx.x; j < n; j += THREADS) squares += (row[j] - mean) * (row[j] - mean);
    const float scale = 1.f / sqrtf(over_block<false>(squares, part) / n + eps);
    for (int j = threadIdx.x; j < n; j += THREADS)
        out[start + j] = (row[j] - mean) * scale * weight[j] + bias[j];
    if (threadIdx.x == 0) {
        means[blockIdx.x] = mean;
        scales[blockIdx.x] = scale;
    }
}

// With y = (x - mean) scale and h = g weight: dx = scale (h - mean(h) - y mean(h y)). Each block
// takes every gridDim.x-th row, and writes its sums of g y and of g to a row of `sums`, (blocks, 2n).
__global__ void norm_rows_grad(const float* in, const float* weight, const float* means,
                               const float* scales, const float* grad, float* out, float* sums,
                               int64_t rows, int n) {
    float *part = memory, *y = memory + WARPS, *g = y + n, *dw = g + n, *db = dw + n;
    for (int j = threadIdx.x; j < n; j += THREADS) dw[j] = db[j] = 0.f;
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
        const float mean = means[r], scale = scales[r];
        float of_h = 0.f, of_hy = 0.f;
        for (int j = threadIdx.x; j < n; j += THREADS) {
            y[j] = (in[r * n + j] - mean) * scale;
            g[j] = grad[r * n + j];
            of_h += g[j] * weight[j];
            of_hy += g[j] * weight[j] * y[j];
            dw[j] += g[j] * y[j];
            db[j] += g[j];
        }
        of_h = over_block<false>(of_h, part) / n;
        of_hy = over_block<false>(of_hy, part) / n;
        for (int j = threadIdx.x; j < n; j += THREADS)
            out[r * n + j] = scale * (g[j] * weight[j] - of_h - y[j] * of_hy);
    }
    for (int j = threadIdx.x; j < n; j += THREADS) {
        sums[blockIdx.x * int64_t(2 * n) + j] = dw[j];
        sums[blockIdx.x * int64_t(2 * n) + n + j] = db[j];
    }
}

// Sums over the rows of `sums`, (rows, 2n): the first n columns, and the last n
__global__ void sum_columns(const float* sums, float* first, float* second, int64_t rows, int n) {
    const int j = blockIdx.x * THREADS + threadIdx.x;
    if (j >= 2 * n) return;
    double total = 0;
    for (int64_t r = 0; r < rows; r++) total += sums[r * 2 * n + j];
    if (j < n)
        first[j] = float(total);
    else
        second[j - n] = float(total);
}

// out (B, B) = z zᵀ, of z (B, D); one thread for each element
__global__ void inner_products(const double* z, double* out, int64_t rows, int64_t n) {
    const int64_t at = int64_t(blockIdx.x) * THREADS + threadIdx.x;
    if (at >= rows * rows) return;
    const double *x = z + at / rows * n, *y = z + at % rows * n;
    double total = 0;
    for (int64_t j = 0; j < n; j++) total += x[j] * y[j];
    out[at] = total;
}

// Its gradient, dz (B, D) = (g + gᵀ) z, of g (B, B)
__global__ void inner_products_grad(const double* z, const double* g, double* out, int64_t rows,
                                    int64_t n) {
    const int64_t at = int64_t(blockIdx.x) * THREADS + threadIdx.x;
    if (at >= rows * n) return;
    const int64_t r = at / n, j = at % n;
    double total = 0;
    for (int64_t c = 0; c < rows; c++) total += (g[r * rows + c] + g[c * rows + r]) * z[c * n + j];
    out[at] = total;
}

}  // namespace
