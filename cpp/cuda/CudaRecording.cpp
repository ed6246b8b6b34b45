// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "CudaRecording.h"

#include <ATen/ATen.h>
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
        const function<void()> undoings[] = {
            [&] { graph.capture_end(); }, [&] { c10::cuda::CUDACachingAllocator::endAllocateToPool(device, pool); },
            // torch 2.11 leaves its generator of random numbers in capture; one that succeeds takes it out.
            [&] {
                at::cuda::CUDAGraph empty;
                empty.capture_begin(at::cuda::graph_pool_handle(), cudaStreamCaptureModeThreadLocal);
                at::zeros({1}, at::Device(at::kCUDA, device));
                empty.capture_end();
            }};
        for (auto& undo : undoings)
            try {
                undo();
            } catch (const exception&) {  // was done before, or is what the failed capture says of itself
            }
        cudaGetLastError();  // or the next launch would report it
        rethrow_exception(reason);
    }
}

}  // namespace OpenMMLatent
