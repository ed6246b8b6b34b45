// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
// Reference and CPU platforms: both keep positions and forces as doubles in ReferencePlatform::PlatformData.
#ifndef OPENMM_LATENT_REFERENCE_KERNELS_H_
#define OPENMM_LATENT_REFERENCE_KERNELS_H_

#include "openmm/KernelImpl.h"
#include "openmm/Platform.h"
#include "openmm/internal/ContextImpl.h"
#include "openmm/reference/ReferencePlatform.h"

namespace OpenMMLatent {

inline OpenMM::ReferencePlatform::PlatformData& platformData(OpenMM::ContextImpl& context) {
    return *reinterpret_cast<OpenMM::ReferencePlatform::PlatformData*>(context.getPlatformData());
}

OpenMM::KernelImpl* createReferenceJumpKernel(const OpenMM::Platform& platform);
OpenMM::KernelImpl* createReferenceRestraintKernel(const OpenMM::Platform& platform);

}  // namespace OpenMMLatent

#endif
