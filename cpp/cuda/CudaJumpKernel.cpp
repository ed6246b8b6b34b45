// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
// torch works in the device's primary context, OpenMM in one of its own; both see the same memory. Each call below
// makes the context it needs current, and events order the two streams, so that nothing crosses to the host.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <new>
#include <optional>

#include "CommonJumpKernel.h"
#include "openmm/KernelFactory.h"
#include "openmm/OpenMMException.h"
#include "openmm/Platform.h"
#include "openmm/cuda/CudaArray.h"
#include "openmm/cuda/CudaContext.h"
#include "openmm/cuda/CudaPlatform.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

void check(CUresult result, const char* what) {
    if (result != CUDA_SUCCESS)
        throw OpenMMException(string("CUDA: cannot ") + what + ": " + CudaContext::getErrorString(result));
}

/** Makes torch's (primary) context current for a scope. */
class PrimaryContext {
public:
    explicit PrimaryContext(CUcontext primary) : PrimaryContext(primary, nothrow) {
        check(result, "make torch's context current");
    }
    /** For destructors: at the end of the process the driver may be gone before us. */
    PrimaryContext(CUcontext primary, const nothrow_t&) : result(cuCtxPushCurrent(primary)) {}
    ~PrimaryContext() {
        CUcontext popped;
        if (result == CUDA_SUCCESS)
            cuCtxPopCurrent(&popped);
    }

private:
    CUresult result;
};

/** The device's primary context, kept alive for as long as torch uses it here. */
class RetainedPrimary {
public:
    explicit RetainedPrimary(CUdevice device) : device(device) {
        check(cuDevicePrimaryCtxRetain(&context, device), "retain the device's primary context");
    }
    ~RetainedPrimary() { cuDevicePrimaryCtxRelease(device); }
    CUdevice device;
    CUcontext context = nullptr;
};

class CudaJumpKernel : public CommonJumpKernel {
public:
    CudaJumpKernel(const string& name, const Platform& platform, CudaContext& cu)
            : CommonJumpKernel(name, platform, cu), cu(cu), primary(cu.getDevice()) {}

    ~CudaJumpKernel() {
        {
            ContextSelector selector(cu);
            if (gathered != nullptr)
                cuEventDestroy(gathered);
        }
        PrimaryContext scope(primary.context, nothrow);
        if (proposed != nullptr)
            cuEventDestroy(proposed);
        proposals.clear();  // the modules' weights live in the primary context
    }

    void initialize(const System& system, const LatentIntegrator& integrator) override {
        PrimaryContext scope(primary.context);
        CommonJumpKernel::initialize(system, integrator);
        check(cuEventCreate(&proposed, CU_EVENT_DISABLE_TIMING), "create an event");
        // One stream for good: torch caches memory and workspaces by stream.
        stream = c10::cuda::getStreamFromPool(false, (c10::DeviceIndex) cu.getDeviceIndex());
        ContextSelector selector(cu);
        check(cuEventCreate(&gathered, CU_EVENT_DISABLE_TIMING), "create an event");
    }

protected:
    at::Device device() override { return at::Device(at::kCUDA, (c10::DeviceIndex) cu.getDeviceIndex()); }

    bool propose(DeviceBundle& buffers, const Vec3* box, int seed, JumpRecord& record) override {
        CUstream mdStream = cu.getCurrentStream();
        {
            ContextSelector selector(cu);
            check(cuEventRecord(gathered, mdStream), "record an event");
        }
        bool isFinite;
        {
            PrimaryContext scope(primary.context);
            c10::cuda::CUDAStreamGuard guard(*stream);
            check(cuStreamWaitEvent(stream->stream(), gathered, 0), "order the streams");
            at::Tensor gatheredView = view(buffers.gathered, buffers.numModelAtoms + buffers.numRiders);
            at::Tensor positions = gatheredView.to(at::kDouble, false, true);
            at::Tensor displacements =
                proposals[record.bundle]->displacements(positions, box, seed, record.number, record.moduleSeconds);
            isFinite = isUsable(displacements);
            if (isFinite) {
                if (box != nullptr)
                    gatheredView.copy_(positions, true);  // riders need molecules whole
                view(buffers.displacements, buffers.numModelAtoms).copy_(displacements, true);
            }
            check(cuEventRecord(proposed, stream->stream()), "record an event");
        }
        ContextSelector selector(cu);
        check(cuStreamWaitEvent(mdStream, proposed, 0), "order the streams");
        return isFinite;
    }

private:
    /** The first rows of one of OpenMM's arrays, as a tensor that shares its memory. */
    at::Tensor view(ComputeArray& array, int numRows) {
        CUdeviceptr pointer = dynamic_cast<CudaArray&>(array.getArray()).getDevicePointer();
        auto options = at::TensorOptions().dtype(usesDoubles() ? at::kDouble : at::kFloat).device(device());
        return at::from_blob((void*) pointer, {numRows, 3}, options);
    }

    CudaContext& cu;
    RetainedPrimary primary;
    optional<c10::cuda::CUDAStream> stream;
    CUevent gathered = nullptr, proposed = nullptr;
};

class CudaJumpKernelFactory : public KernelFactory {
public:
    KernelImpl* createKernelImpl(string name, const Platform& platform, ContextImpl& context) const override {
        auto& data = *static_cast<CudaPlatform::PlatformData*>(context.getPlatformData());
        if (name == LatentJumpKernel::Name())
            return new CudaJumpKernel(name, platform, *data.contexts[0]);
        throw OpenMMException("openmm-latent has no CUDA kernel called '" + name + "'");
    }
};

}  // namespace

}  // namespace OpenMMLatent

extern "C" OPENMM_LATENT_EXPORT void registerPlatforms() {}

extern "C" OPENMM_LATENT_EXPORT void registerKernelFactories() {
    for (int i = 0; i < Platform::getNumPlatforms(); i++)
        if (Platform::getPlatform(i).getName() == "CUDA")
            Platform::getPlatform(i).registerKernelFactory(OpenMMLatent::LatentJumpKernel::Name(),
                                                           new OpenMMLatent::CudaJumpKernelFactory());
}
