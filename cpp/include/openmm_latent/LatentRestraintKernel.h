// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_RESTRAINT_KERNEL_H_
#define OPENMM_LATENT_RESTRAINT_KERNEL_H_

#include <string>
#include <vector>

#include "Export.h"
#include "openmm/KernelImpl.h"
#include "openmm/System.h"
#include "openmm/Vec3.h"
#include "openmm/internal/ContextImpl.h"

namespace OpenMMLatent {

class LatentRestraintForce;

/** What each platform provides for a LatentRestraintForce: read the model atoms, evaluate, add the forces. */
class OPENMM_LATENT_EXPORT LatentRestraintKernel : public OpenMM::KernelImpl {
public:
    static std::string Name() { return "LatentRestraint"; }
    LatentRestraintKernel(const std::string& name, const OpenMM::Platform& platform) : KernelImpl(name, platform) {}

    /** Load the bundle. Throws OpenMMException naming it if it cannot be loaded. */
    virtual void initialize(const OpenMM::System& system, const LatentRestraintForce& force) = 0;

    /**
     * Add the restraint's forces, if they are asked for, and return its energy [kJ/mol]. Not called at stiffness 0.
     *
     * @param stiffness  k, positive
     * @param target     (n_slow); for superposed structures (1), the fraction of the way
     */
    virtual double execute(OpenMM::ContextImpl& context, bool includeForces, double stiffness,
                           const std::vector<double>& target) = 0;

    /** Slow coordinates of the present frame, (n_slow). */
    virtual std::vector<double> getSlow(OpenMM::ContextImpl& context) = 0;
    /** Set both ends of the way between two structures, (n_atoms) [nm] each. */
    virtual void setPath(const std::vector<OpenMM::Vec3>& start, const std::vector<OpenMM::Vec3>& end) = 0;
};

}  // namespace OpenMMLatent

#endif
