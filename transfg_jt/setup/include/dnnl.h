// oneDNN's C interface; signals wait in the two functions that compute.
#pragma once
#include_next <dnnl.h>
#include <transfg_signals.h>

namespace transfg {

template <typename... Arguments>
inline dnnl_status_t sgemm(Arguments... arguments) {
    SignalsWait wait;
    return ::dnnl_sgemm(arguments...);
}

template <typename... Arguments>
inline dnnl_status_t primitive_execute(Arguments... arguments) {
    SignalsWait wait;
    return ::dnnl_primitive_execute(arguments...);
}

}  // namespace transfg

#define dnnl_sgemm ::transfg::sgemm
#define dnnl_primitive_execute ::transfg::primitive_execute
