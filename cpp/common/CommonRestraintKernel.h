// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_COMMON_RESTRAINT_KERNEL_H_
#define OPENMM_LATENT_COMMON_RESTRAINT_KERNEL_H_

#include <memory>
#include <string>
#include <vector>

#include "ParticleGather.h"
#include "openmm/common/ComputeArray.h"
#include "openmm/common/ComputeContext.h"
#include "openmm/common/ComputeKernel.h"
#include "openmm/common/ContextSelector.h"
#include "openmm_latent/LatentRestraintForce.h"
#include "openmm_latent/LatentRestraintKernel.h"
#include "torch/RestraintEvaluator.h"

namespace OpenMMLatent {

/** The platforms built on ComputeContext: positions are gathered and forces added on the device. */
class CommonRestraintKernel : public LatentRestraintKernel {
public:
    CommonRestraintKernel(const std::string& name, const OpenMM::Platform& platform, OpenMM::ComputeContext& cc)
            : LatentRestraintKernel(name, platform), cc(cc) {}
    void initialize(const OpenMM::System& system, const LatentRestraintForce& force) override;
    double execute(OpenMM::ContextImpl& context, bool includeForces, double stiffness,
                   const std::vector<double>& target) override;
    std::vector<double> getSlow(OpenMM::ContextImpl& context) override;
    void setPath(const std::vector<OpenMM::Vec3>& start, const std::vector<OpenMM::Vec3>& end) override {
        evaluator->setPath(start, end);
    }

protected:
    /** Where torch works. */
    virtual at::Device device() { return at::kCPU; }
    /**
     * Evaluate the restraint at the gathered positions and fill `forces` if they are asked for. Here by way of the
     * host; a platform whose memory torch can use overrides it, and the next.
     */
    virtual double evaluate(const OpenMM::Vec3* box, bool includeForces, double stiffness,
                            const std::vector<double>& target);
    /** Slow coordinates of the gathered positions, (n_slow). */
    virtual std::vector<double> slow(const OpenMM::Vec3* box);

    OpenMM::ComputeContext& cc;
    ParticleGather gather;
    OpenMM::ComputeArray forces;  // the same layout as gather.gathered [kJ/mol/nm]
    std::unique_ptr<RestraintEvaluator> evaluator;

private:
    at::Tensor download();

    OpenMM::ComputeKernel addForces;
    bool isPeriodic = false;
};

}  // namespace OpenMMLatent

#endif
