// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "CudaJumpKernel.h"
#include "CudaRestraintKernel.h"
#include "openmm/KernelFactory.h"
#include "openmm/OpenMMException.h"
#include "openmm/Platform.h"
#include "openmm/cuda/CudaPlatform.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

class CudaKernelFactory : public KernelFactory {
public:
    KernelImpl* createKernelImpl(string name, const Platform& platform, ContextImpl& context) const override {
        auto& data = *static_cast<CudaPlatform::PlatformData*>(context.getPlatformData());
        if (name == LatentJumpKernel::Name())
            return new CudaJumpKernel(name, platform, *data.contexts[0]);
        if (name == LatentRestraintKernel::Name())
            return new CudaRestraintKernel(name, platform, *data.contexts[0]);
        throw OpenMMException("openmm-latent has no CUDA kernel called '" + name + "'");
    }
};

}  // namespace

}  // namespace OpenMMLatent

extern "C" OPENMM_LATENT_EXPORT void registerPlatforms() {}

extern "C" OPENMM_LATENT_EXPORT void registerKernelFactories() {
    using namespace OpenMMLatent;
    for (int i = 0; i < Platform::getNumPlatforms(); i++)
        if (Platform::getPlatform(i).getName() == "CUDA")
            for (auto& name : {LatentJumpKernel::Name(), LatentRestraintKernel::Name()})
                Platform::getPlatform(i).registerKernelFactory(name, new CudaKernelFactory());
}
