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
    explicit LatentRestraintForceImpl(const LatentRestraintForce& owner);
    void initialize(OpenMM::ContextImpl& context) override;
    const LatentRestraintForce& getOwner() const override { return owner; }
    double calcForcesAndEnergy(OpenMM::ContextImpl& context, bool includeForces, bool includeEnergy,
                               int groups) override;
    std::map<std::string, double> getDefaultParameters() override;
    std::vector<std::string> getKernelNames() override;

    /** Slow coordinates of the present frame, (n_slow); empty if the force pulls superposed structures. */
    std::vector<double> getSlow(OpenMM::ContextImpl& context);
    /** As LatentRestraintForce::setPath(); forces that an integrator has cached are its caller's to invalidate. */
    void setPath(const std::vector<OpenMM::Vec3>& start, const std::vector<OpenMM::Vec3>& end);

private:
    bool pullsStructures() const { return owner.getNumSlow() == 0; }

    const LatentRestraintForce& owner;
    // Looked up at every step, so put together once. The targets are the progress alone for superposed structures.
    std::string stiffnessParameter;
    std::vector<std::string> targetParameters;
    std::vector<double> target;
    bool hasPath = false;
    OpenMM::Kernel kernel;
};

}  // namespace OpenMMLatent

#endif
