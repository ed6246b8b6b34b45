// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "ReferenceKernels.h"
#include "openmm/KernelFactory.h"
#include "openmm/OpenMMException.h"
#include "openmm_latent/LatentJumpKernel.h"
#include "openmm_latent/LatentRestraintKernel.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

class ReferenceKernelFactory : public KernelFactory {
public:
    KernelImpl* createKernelImpl(string name, const Platform& platform, ContextImpl&) const override {
        if (name == LatentJumpKernel::Name())
            return createReferenceJumpKernel(platform);
        if (name == LatentRestraintKernel::Name())
            return createReferenceRestraintKernel(platform);
        throw OpenMMException("openmm-latent has no Reference kernel called '" + name + "'");
    }
};

}  // namespace

}  // namespace OpenMMLatent

extern "C" OPENMM_LATENT_EXPORT void registerPlatforms() {}

extern "C" OPENMM_LATENT_EXPORT void registerKernelFactories() {
    using namespace OpenMMLatent;
    for (int i = 0; i < Platform::getNumPlatforms(); i++) {
        Platform& platform = Platform::getPlatform(i);
        if (dynamic_cast<ReferencePlatform*>(&platform) != nullptr)  // the CPU platform is one, too
            for (auto& name : {LatentJumpKernel::Name(), LatentRestraintKernel::Name()})
                platform.registerKernelFactory(name, new ReferenceKernelFactory());
    }
}
