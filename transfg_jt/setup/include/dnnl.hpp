// oneDNN's C++ interface, which calls the C interface: here the one in which signals wait.
#pragma once
#include <dnnl.h>
#include_next <dnnl.hpp>
