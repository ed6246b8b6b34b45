// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
// torch works in the device's primary context, OpenMM in one of its own; both see the same memory. Each call makes the
// context it needs current, and events order the two streams, so that nothing crosses to the host.
#ifndef OPENMM_LATENT_TORCH_STREAM_H_
#define OPENMM_LATENT_TORCH_STREAM_H_

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <new>
#include <optional>

#include "openmm/common/ComputeArray.h"
#include "openmm/common/ContextSelector.h"
#include "openmm/cuda/CudaContext.h"

namespace OpenMMLatent {

/** Throw OpenMMException with the driver's own words unless a call has succeeded. */
void checkCuda(CUresult result, const char* what);

/** Makes torch's (primary) context current for a scope. */
class PrimaryContext {
public:
    explicit PrimaryContext(CUcontext primary) : PrimaryContext(primary, std::nothrow) {
        checkCuda(result, "make torch's context current");
    }
    /** For destructors: at the end of the process the driver may be gone before us. */
    PrimaryContext(CUcontext primary, const std::nothrow_t&) : result(cuCtxPushCurrent(primary)) {}
    ~PrimaryContext() {
        CUcontext popped;
        if (result == CUDA_SUCCESS)
            cuCtxPopCurrent(&popped);
    }

private:
    CUresult result;
};

/** Lets torch work on OpenMM's arrays, between two pieces of OpenMM's own work. */
class TorchStream {
public:
    explicit TorchStream(OpenMM::CudaContext& cu);
    ~TorchStream();

    /** Make the events and torch's stream; torch's context must be current. */
    void open();
    at::Device device() const { return at::Device(at::kCUDA, (c10::DeviceIndex) cu.getDeviceIndex()); }
    CUcontext context() const { return primary; }

    /** Run `body` with torch's context and stream, after what OpenMM has begun and before what it begins later. */
    template <class Body>
    auto run(Body body) {
        CUstream mdStream = cu.getCurrentStream();
        {
            OpenMM::ContextSelector selector(cu);
            checkCuda(cuEventRecord(mdDone, mdStream), "record an event");
        }
        auto result = runOnStream(body);
        OpenMM::ContextSelector selector(cu);
        checkCuda(cuStreamWaitEvent(mdStream, torchDone, 0), "order the streams");
        return result;
    }
    /** Within another's run(): let torch's present stream come after what OpenMM has begun here. */
    void follow();
    /** Within run(): copy rows that were made on this or on another's stream into one of OpenMM's arrays. */
    void copy(at::Tensor& rows, OpenMM::ComputeArray& array) const;
    /** The first rows, (n_rows, 3), of one of OpenMM's arrays of coordinates, as a tensor that shares its memory. */
    at::Tensor view(OpenMM::ComputeArray& array, int numRows) const;

private:
    template <class Body>
    auto runOnStream(Body body) {
        PrimaryContext scope(primary);
        c10::cuda::CUDAStreamGuard guard(*stream);
        checkCuda(cuStreamWaitEvent(stream->stream(), mdDone, 0), "order the streams");
        auto result = body();
        checkCuda(cuEventRecord(torchDone, stream->stream()), "record an event");
        return result;
    }

    OpenMM::CudaContext& cu;
    CUcontext primary = nullptr;  // the device's, retained for as long as torch uses it here
    std::optional<c10::cuda::CUDAStream> stream;
    CUevent mdDone = nullptr, torchDone = nullptr;
};

}  // namespace OpenMMLatent

#endif
