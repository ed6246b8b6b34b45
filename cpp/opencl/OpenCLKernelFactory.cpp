// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "CommonJumpKernel.h"
#include "CommonRestraintKernel.h"
#include "openmm/KernelFactory.h"
#include "openmm/OpenMMException.h"
#include "openmm/Platform.h"
#include "openmm/opencl/OpenCLContext.h"
#include "openmm/opencl/OpenCLPlatform.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

class OpenCLKernelFactory : public KernelFactory {
public:
    KernelImpl* createKernelImpl(string name, const Platform& platform, ContextImpl& context) const override {
        auto& data = *static_cast<OpenCLPlatform::PlatformData*>(context.getPlatformData());
        if (name == LatentJumpKernel::Name())
            return new CommonJumpKernel(name, platform, *data.contexts[0]);
        if (name == LatentRestraintKernel::Name())
            return new CommonRestraintKernel(name, platform, *data.contexts[0]);
        throw OpenMMException("openmm-latent has no OpenCL kernel called '" + name + "'");
    }
};

}  // namespace

}  // namespace OpenMMLatent

extern "C" OPENMM_LATENT_EXPORT void registerPlatforms() {}

extern "C" OPENMM_LATENT_EXPORT void registerKernelFactories() {
    using namespace OpenMMLatent;
    for (int i = 0; i < Platform::getNumPlatforms(); i++)
        if (Platform::getPlatform(i).getName() == "OpenCL")
            for (auto& name : {LatentJumpKernel::Name(), LatentRestraintKernel::Name()})
                Platform::getPlatform(i).registerKernelFactory(name, new OpenCLKernelFactory());
}
