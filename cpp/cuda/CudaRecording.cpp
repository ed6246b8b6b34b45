// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "CudaRecording.h"

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>

#include <exception>

using namespace std;

namespace OpenMMLatent {

void CudaRecording::record(const function<void()>& body) {
    auto pool = at::cuda::graph_pool_handle();
    // Of this thread alone: other Contexts may be working in theirs.
    graph.capture_begin(pool, cudaStreamCaptureModeThreadLocal);
    try {
        body();
        graph.capture_end();
    } catch (...) {
        exception_ptr reason = current_exception();
        // The stream must leave capture, and the allocator stop serving it from the pool, whichever was reached.
        auto device = c10::cuda::getCurrentCUDAStream().device_index();
        for (const function<void()>& undo : {function<void()>([&] { graph.capture_end(); }), function<void()>([&] {
                                                 c10::cuda::CUDACachingAllocator::endAllocateToPool(device, pool);
                                             })})
            try {
                undo();
            } catch (const exception&) {  // was done before, or is what the failed capture says of itself
            }
        rethrow_exception(reason);
    }
}

}  // namespace OpenMMLatent
