// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_RESTRAINT_FORCE_IMPL_H_
#define OPENMM_LATENT_RESTRAINT_FORCE_IMPL_H_

#include <map>
#include <string>
#include <vector>

#include "openmm/Kernel.h"
#include "openmm/internal/ForceImpl.h"
#include "openmm_latent/Export.h"
#include "openmm_latent/LatentRestraintForce.h"

namespace OpenMMLatent {

/** A LatentRestraintForce at work in one Context; LatentIntegrator finds it there and drives with it. */
class OPENMM_LATENT_EXPORT LatentRestraintForceImpl : public OpenMM::ForceImpl {
public:
    explicit LatentRestraintForceImpl(const LatentRestraintForce& owner) : owner(owner) {}
    void initialize(OpenMM::ContextImpl& context) override;
    const LatentRestraintForce& getOwner() const override { return owner; }
    double calcForcesAndEnergy(OpenMM::ContextImpl& context, bool includeForces, bool includeEnergy,
                               int groups) override;
    std::map<std::string, double> getDefaultParameters() override;
    std::vector<std::string> getKernelNames() override;

    std::vector<double> getSlow(OpenMM::ContextImpl& context);
    void setPath(const std::vector<OpenMM::Vec3>& start, const std::vector<OpenMM::Vec3>& end);

private:
    const LatentRestraintForce& owner;
    OpenMM::Kernel kernel;
};

}  // namespace OpenMMLatent

#endif
