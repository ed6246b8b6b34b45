// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_RESTRAINT_FORCE_H_
#define OPENMM_LATENT_RESTRAINT_FORCE_H_

#include <string>
#include <vector>

#include "Export.h"
#include "LatentBundle.h"
#include "openmm/Context.h"
#include "openmm/Force.h"
#include "openmm/Vec3.h"

namespace OpenMMLatent {

/**
 * Pulls the system towards a point of a model's slow coordinates, E = k/2 sum_j w_j (slow_j(encode(x)) - target_j)^2.
 *
 * k [kJ/mol] and each component of the target are parameters of the Context; differences of periodic coordinates take
 * the short way round. While k is 0, the default, nothing is computed. The weights w are 1 unless they are set: driven
 * jumps need them so. Usable alone, as a learned collective variable; then a weight of 0 leaves a coordinate free.
 *
 * For a model without slow coordinates the force pulls all model atoms at once: E = k/2 sum |x_i - y_i|^2
 * [k: kJ/mol/nm^2] with y, a structure, superposed on the frame. That structure lies on the straight way between two
 * others, given by setPath(), at the fraction that the `progress` parameter says.
 */
class OPENMM_LATENT_EXPORT LatentRestraintForce : public OpenMM::Force {
public:
    /**
     * @param bundle  its `slowPeriods` say how many slow coordinates there are; none: superposed structures
     * @param name    begins the names of the Context parameters
     */
    explicit LatentRestraintForce(const LatentBundle& bundle, const std::string& name = "latentRestraint");

    const LatentBundle& getBundle() const { return bundle; }
    /** Number of slow coordinates; 0 if the force pulls superposed structures. */
    int getNumSlow() const { return (int) bundle.slowPeriods.size(); }
    /** Names of the Context parameters: name_k, name_target_1 ..., name_progress. */
    std::string getStiffnessParameter() const;
    std::string getTargetParameter(int index) const;
    std::string getProgressParameter() const;

    double getDefaultStiffness() const { return defaultStiffness; }
    void setDefaultStiffness(double k);
    const std::vector<double>& getDefaultTarget() const { return defaultTarget; }
    void setDefaultTarget(const std::vector<double>& target);
    /** Weight of each slow coordinate, (n_slow), zero or positive; may be set until a Context is made. */
    const std::vector<double>& getWeights() const { return weights; }
    void setWeights(const std::vector<double>& values);
    /** Whether every weight is 1. */
    bool pullsAllAlike() const;

    /** The slow coordinates of a Context's present frame, (n_slow). */
    std::vector<double> getSlow(OpenMM::Context& context) const;
    /** Set both ends of the way, (n_atoms) [nm] each, in manifest order, at any place and orientation. */
    void setPath(OpenMM::Context& context, const std::vector<OpenMM::Vec3>& start,
                 const std::vector<OpenMM::Vec3>& end) const;

    bool usesPeriodicBoundaryConditions() const override { return false; }

protected:
    OpenMM::ForceImpl* createImpl() const override;

private:
    LatentBundle bundle;
    double defaultStiffness = 0;
    std::vector<double> defaultTarget, weights;
};

}  // namespace OpenMMLatent

#endif
