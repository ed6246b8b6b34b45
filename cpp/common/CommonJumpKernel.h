// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_COMMON_JUMP_KERNEL_H_
#define OPENMM_LATENT_COMMON_JUMP_KERNEL_H_

#include <memory>
#include <string>
#include <vector>

#include "ParticleGather.h"
#include "openmm/common/ComputeArray.h"
#include "openmm/common/ComputeContext.h"
#include "openmm/common/ComputeKernel.h"
#include "openmm/common/ContextSelector.h"
#include "torch/TorchJumpKernel.h"

namespace OpenMMLatent {

/** The platforms built on ComputeContext: gather, ride and scatter run on the device. */
class CommonJumpKernel : public TorchJumpKernel {
public:
    CommonJumpKernel(const std::string& name, const OpenMM::Platform& platform, OpenMM::ComputeContext& cc)
            : TorchJumpKernel(name, platform), cc(cc) {}
    void initialize(const OpenMM::System& system, const LatentIntegrator& integrator) override;
    void save(OpenMM::ContextImpl& context) override;
    void restore(OpenMM::ContextImpl& context) override;
    bool move(OpenMM::ContextImpl& context, int candidate, JumpRecord& record) override;

protected:
    /** One bundle's buffers on the device; its gathered particles are the model atoms, then the riders. */
    struct DeviceBundle {
        int numModelAtoms = 0, numRiders = 0;
        ParticleGather gather;
        OpenMM::ComputeArray movablePlace;   // as gather.place, but -1 for particles without mass, which stay
        OpenMM::ComputeArray displacements;  // the same layout as gather.gathered
        OpenMM::ComputeArray riders;         // int4: row in gathered, origin, axis, plane
        OpenMM::ComputeKernel ride, scatter;
    };

    /** Where torch works. */
    virtual at::Device device() { return at::kCPU; }
    // These two go by way of the host; a platform whose memory torch can use overrides them.
    at::Tensor gather(OpenMM::ContextImpl& context, int bundle) override;
    /** Fill the model atoms' part of `displacements`, and make the gathered molecules whole. */
    virtual void deliver(const JumpProposal& proposal, int candidate, DeviceBundle& buffers);

    OpenMM::ComputeContext& cc;
    std::vector<std::unique_ptr<DeviceBundle>> buffersOf;  // each bundle

private:
    void prepare(const LatentBundle& bundle, DeviceBundle& buffers);

    // The snapshot that restore() brings back.
    OpenMM::ComputeArray savedPosq, savedCorrection, savedVelm;
    std::vector<int> savedAtomIndex;
    std::vector<OpenMM::mm_int4> savedCellOffsets;
    OpenMM::Vec3 savedBox[3];
};

}  // namespace OpenMMLatent

#endif
