// Jittor's tuners of fused operators: in one thread at a time.
//
// Jittor 1.3.11 compiles operators in several threads. In each, a tuner makes an operator of oneDNN,
// cuBLAS or cuDNN and gives its output back (opt/tuner/matmul_tuner.cc, conv_tuner.cc). That changes
// lists and counters which all threads share: the outputs of an input, and `free_buffer` and `nt` in
// node.h. Without a lock the heap is damaged. The tuners of an operator live until its source is
// complete; the compiler starts after that, so compilers still run side by side.
//
// The header of TunerManager cannot be replaced: files beside the folder `opt` find it without -I.
#pragma once
#include <mutex>

#include "common.h"

namespace transfg {

// Recursive, because an operator has several tuners.
inline std::recursive_mutex& tuners_mutex() {
    static std::recursive_mutex mutex;
    return mutex;
}

// In place of a tuner's candidates: they hold the lock as long as the tuner lives.
struct LockedCandidates : jittor::loop_option_candidates_t {
    LockedCandidates() : lock_(tuners_mutex()) {}

  private:
    std::unique_lock<std::recursive_mutex> lock_;
};

}  // namespace transfg

#define loop_option_candidates_t ::transfg::LockedCandidates
#include_next <opt/tuner/tuner.h>
#undef loop_option_candidates_t
