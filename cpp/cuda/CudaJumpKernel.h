// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_CUDA_JUMP_KERNEL_H_
#define OPENMM_LATENT_CUDA_JUMP_KERNEL_H_

#include <string>

#include "CommonJumpKernel.h"
#include "TorchStream.h"

namespace OpenMMLatent {

/** CommonJumpKernel with torch on the GPU. */
class CudaJumpKernel : public CommonJumpKernel {
public:
    CudaJumpKernel(const std::string& name, const OpenMM::Platform& platform, OpenMM::CudaContext& cu)
            : CommonJumpKernel(name, platform, cu), torchStream(cu) {}
    ~CudaJumpKernel();
    void initialize(const OpenMM::System& system, const LatentIntegrator& integrator) override;

protected:
    at::Device device() override { return torchStream.device(); }
    bool propose(DeviceBundle& buffers, const OpenMM::Vec3* box, int seed, JumpRecord& record) override;

private:
    TorchStream torchStream;
};

}  // namespace OpenMMLatent

#endif
