// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_CUDA_RESTRAINT_KERNEL_H_
#define OPENMM_LATENT_CUDA_RESTRAINT_KERNEL_H_

#include <string>
#include <vector>

#include "CommonRestraintKernel.h"
#include "TorchStream.h"

namespace OpenMMLatent {

/** CommonRestraintKernel with torch on the GPU; of each step only the slow coordinates come to the host. */
class CudaRestraintKernel : public CommonRestraintKernel {
public:
    CudaRestraintKernel(const std::string& name, const OpenMM::Platform& platform, OpenMM::CudaContext& cu)
            : CommonRestraintKernel(name, platform, cu), torchStream(cu) {}
    ~CudaRestraintKernel();
    void initialize(const OpenMM::System& system, const LatentRestraintForce& force) override;
    void setPath(const std::vector<OpenMM::Vec3>& start, const std::vector<OpenMM::Vec3>& end) override;

protected:
    at::Device device() override { return torchStream.device(); }
    double evaluate(const OpenMM::Vec3* box, bool includeForces, double stiffness,
                    const std::vector<double>& target) override;
    std::vector<double> slow(const OpenMM::Vec3* box) override;

private:
    at::Tensor positions() { return torchStream.view(gather.gathered, gather.getNumGathered()); }

    TorchStream torchStream;
};

}  // namespace OpenMMLatent

#endif
