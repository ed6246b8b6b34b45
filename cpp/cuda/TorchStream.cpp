// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "TorchStream.h"

#include <ATen/ATen.h>

#include <string>

#include "common/ParticleGather.h"
#include "openmm/OpenMMException.h"
#include "openmm/cuda/CudaArray.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

void checkCuda(CUresult result, const char* what) {
    if (result != CUDA_SUCCESS)
        throw OpenMMException(string("CUDA: cannot ") + what + ": " + CudaContext::getErrorString(result));
}

TorchStream::TorchStream(CudaContext& cu) : cu(cu) {
    checkCuda(cuDevicePrimaryCtxRetain(&primary, cu.getDevice()), "retain the device's primary context");
}

TorchStream::~TorchStream() {
    {
        ContextSelector selector(cu);
        if (mdDone != nullptr)
            cuEventDestroy(mdDone);
    }
    {
        PrimaryContext scope(primary, nothrow);
        if (torchDone != nullptr)
            cuEventDestroy(torchDone);
    }
    cuDevicePrimaryCtxRelease(cu.getDevice());
}

void TorchStream::open() {
    checkCuda(cuEventCreate(&torchDone, CU_EVENT_DISABLE_TIMING), "create an event");
    // One stream for good: torch caches memory and workspaces by stream.
    stream = c10::cuda::getStreamFromPool(false, (c10::DeviceIndex) cu.getDeviceIndex());
    ContextSelector selector(cu);
    checkCuda(cuEventCreate(&mdDone, CU_EVENT_DISABLE_TIMING), "create an event");
}

void TorchStream::follow() {
    CUstream mdStream = cu.getCurrentStream();
    {
        ContextSelector selector(cu);
        checkCuda(cuEventRecord(mdDone, mdStream), "record an event");
    }
    CUstream torchStream = c10::cuda::getCurrentCUDAStream((c10::DeviceIndex) cu.getDeviceIndex()).stream();
    checkCuda(cuStreamWaitEvent(torchStream, mdDone, 0), "order the streams");
}

void TorchStream::copy(at::Tensor& rows, ComputeArray& array) const {
    view(array, (int) rows.size(0)).copy_(rows, true);
    rows.record_stream(*stream);  // or its memory could be given away before the copy is done
}

at::Tensor TorchStream::view(ComputeArray& array, int numRows) const {
    CUdeviceptr pointer = dynamic_cast<CudaArray&>(array.getArray()).getDevicePointer();
    auto options = at::TensorOptions().dtype(usesDoubles(cu) ? at::kDouble : at::kFloat).device(device());
    // Told where it is: torch would ask the CUDA runtime, which knows nothing of OpenMM's context.
    return at::for_blob((void*) pointer, {numRows, 3}).options(options).target_device(device()).make_tensor();
}

}  // namespace OpenMMLatent
