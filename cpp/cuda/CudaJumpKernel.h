// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_CUDA_JUMP_KERNEL_H_
#define OPENMM_LATENT_CUDA_JUMP_KERNEL_H_

#include <functional>
#include <memory>
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
    at::Tensor gather(OpenMM::ContextImpl& context, int bundle) override;
    void deliver(const JumpProposal& proposal, int candidate, DeviceBundle& buffers) override;
    void runTorch(const std::function<void()>& body) const override;
    std::unique_ptr<ModuleRunner> makeRunner(const LatentBundle& bundle, at::Device device) override;

private:
    mutable TorchStream torchStream;  // runTorch changes nothing that lasts
};

}  // namespace OpenMMLatent

#endif
