// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "openmm_latent/LatentRestraintForce.h"

#include <algorithm>
#include <cmath>

#include "openmm/OpenMMException.h"
#include "openmm_latent/internal/LatentRestraintForceImpl.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

LatentRestraintForce::LatentRestraintForce(const LatentBundle& bundle, const string& name)
        : bundle(bundle), defaultTarget(bundle.slowPeriods.size(), 0.0), weights(bundle.slowPeriods.size(), 1.0) {
    if (name.empty())
        throw OpenMMException("the restraint's name must not be empty: it begins the names of its Context parameters");
    if (bundle.particles.empty())
        throw OpenMMException("bundle '" + bundle.name + "' has no model atoms that a restraint could pull");
    for (double period : bundle.slowPeriods)
        if (!(period >= 0) || !isfinite(period))
            throw OpenMMException("bundle '" + bundle.name + "' has a slow coordinate of period " + to_string(period) +
                                  "; a period is positive, or 0 for a coordinate that is not an angle");
    setName(name);
}

string LatentRestraintForce::getStiffnessParameter() const { return getName() + "_k"; }

string LatentRestraintForce::getTargetParameter(int index) const {
    if (index < 0 || index >= getNumSlow())
        throw OpenMMException("getTargetParameter: index must be in [0, " + to_string(getNumSlow()) + "), got " +
                              to_string(index));
    return getName() + "_target_" + to_string(index + 1);
}

string LatentRestraintForce::getProgressParameter() const { return getName() + "_progress"; }

void LatentRestraintForce::setDefaultStiffness(double k) {
    if (!(k >= 0) || !isfinite(k))
        throw OpenMMException("the restraint's stiffness must be zero or positive, got " + to_string(k));
    defaultStiffness = k;
}

void LatentRestraintForce::setDefaultTarget(const vector<double>& target) {
    if ((int) target.size() != getNumSlow())
        throw OpenMMException("the restraint's target must have one component for each of the " +
                              to_string(getNumSlow()) + " slow coordinates of bundle '" + bundle.name + "', got " +
                              to_string(target.size()));
    for (double component : target)
        if (!isfinite(component))
            throw OpenMMException("the restraint's target must be finite, got " + to_string(component));
    defaultTarget = target;
}

void LatentRestraintForce::setWeights(const vector<double>& values) {
    if ((int) values.size() != getNumSlow())
        throw OpenMMException("the restraint's weights must be one for each of the " + to_string(getNumSlow()) +
                              " slow coordinates of bundle '" + bundle.name + "', got " + to_string(values.size()));
    for (double weight : values)
        if (!(weight >= 0) || !isfinite(weight))
            throw OpenMMException("the restraint's weights must be zero or positive, got " + to_string(weight));
    weights = values;
}

bool LatentRestraintForce::pullsAllAlike() const {
    return all_of(weights.begin(), weights.end(), [](double weight) { return weight == 1; });
}

vector<double> LatentRestraintForce::getSlow(Context& context) const {
    return dynamic_cast<LatentRestraintForceImpl&>(getImplInContext(context)).getSlow(getContextImpl(context));
}

void LatentRestraintForce::setPath(Context& context, const vector<Vec3>& start, const vector<Vec3>& end) const {
    dynamic_cast<LatentRestraintForceImpl&>(getImplInContext(context)).setPath(start, end);
    // Tells the integrator that forces it has kept are those of another energy now.
    context.setParameter(getProgressParameter(), context.getParameter(getProgressParameter()));
}

ForceImpl* LatentRestraintForce::createImpl() const { return new LatentRestraintForceImpl(*this); }

}  // namespace OpenMMLatent
