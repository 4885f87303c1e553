// Signals wait while oneDNN computes.
//
// oneDNN's matrix products on x86-64 keep a buffer on the heap and let the stack pointer point to
// it (oneDNN issue 4845; mended in 3.12, but Jittor 1.3.11 needs 2.x). When a signal with a handler
// arrives, Linux writes the registers below the stack pointer: there into the heap, or into another
// thread's buffer. So every signal waits until the product is finished.
#pragma once
#include <pthread.h>
#include <signal.h>

#include <initializer_list>

namespace transfg {

// Until the end of its scope, no handler runs in this thread, nor in threads that start meanwhile,
// since they inherit the mask. The signals of faults are left out: they cannot wait.
class SignalsWait {
  public:
    SignalsWait() {
        sigset_t signals;
        sigfillset(&signals);
        for (int fault : {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP})
            sigdelset(&signals, fault);
        pthread_sigmask(SIG_BLOCK, &signals, &before_);
    }
    ~SignalsWait() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
    SignalsWait(const SignalsWait&) = delete;
    SignalsWait& operator=(const SignalsWait&) = delete;

  private:
    sigset_t before_;
};

}  // namespace transfg
