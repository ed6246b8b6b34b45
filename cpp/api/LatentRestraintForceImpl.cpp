// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "openmm_latent/internal/LatentRestraintForceImpl.h"

#include "openmm/OpenMMException.h"
#include "openmm/Platform.h"
#include "openmm/internal/ContextImpl.h"
#include "openmm_latent/LatentRestraintKernel.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

LatentRestraintForceImpl::LatentRestraintForceImpl(const LatentRestraintForce& owner)
        : owner(owner), stiffnessParameter(owner.getStiffnessParameter()) {
    for (int i = 0; i < owner.getNumSlow(); i++)
        targetParameters.push_back(owner.getTargetParameter(i));
    if (pullsStructures())
        targetParameters.push_back(owner.getProgressParameter());
    target.resize(targetParameters.size());
}

void LatentRestraintForceImpl::initialize(ContextImpl& context) {
    const System& system = context.getSystem();
    const LatentBundle& bundle = owner.getBundle();
    for (int particle : bundle.particles)
        if (particle < 0 || particle >= system.getNumParticles())
            throw OpenMMException("bundle '" + bundle.name + "': the restraint '" + owner.getName() +
                                  "' pulls particle " + to_string(particle) + ", which is outside the System's " +
                                  to_string(system.getNumParticles()) +
                                  " particles; add the restraint to the System whose topology it was made with");
    kernel = context.getPlatform().createKernel(LatentRestraintKernel::Name(), context);
    kernel.getAs<LatentRestraintKernel>().initialize(system, owner);
}

double LatentRestraintForceImpl::calcForcesAndEnergy(ContextImpl& context, bool includeForces, bool includeEnergy,
                                                     int groups) {
    if ((groups & (1u << owner.getForceGroup())) == 0 || !(includeForces || includeEnergy))
        return 0;
    double stiffness = context.getParameter(stiffnessParameter);
    if (stiffness == 0)
        return 0;
    if (!(stiffness > 0))
        throw OpenMMException("the Context parameter '" + stiffnessParameter + "' must be zero or positive, it is " +
                              to_string(stiffness));
    if (pullsStructures() && !hasPath)
        throw OpenMMException("the restraint '" + owner.getName() + "' has no structure to pull to: bundle '" +
                              owner.getBundle().name + "' has no slow coordinates; call setPath before '" +
                              stiffnessParameter + "' is set, and again after the Context was reinitialised");
    for (size_t i = 0; i < target.size(); i++)
        target[i] = context.getParameter(targetParameters[i]);
    double energy = kernel.getAs<LatentRestraintKernel>().execute(context, includeForces, stiffness, target);
    return includeEnergy ? energy : 0;
}

map<string, double> LatentRestraintForceImpl::getDefaultParameters() {
    map<string, double> parameters;
    parameters[stiffnessParameter] = owner.getDefaultStiffness();
    for (size_t i = 0; i < targetParameters.size(); i++)
        parameters[targetParameters[i]] = pullsStructures() ? 0 : owner.getDefaultTarget()[i];
    return parameters;
}

vector<string> LatentRestraintForceImpl::getKernelNames() { return {LatentRestraintKernel::Name()}; }

vector<double> LatentRestraintForceImpl::getSlow(ContextImpl& context) {
    return pullsStructures() ? vector<double>() : kernel.getAs<LatentRestraintKernel>().getSlow(context);
}

void LatentRestraintForceImpl::setPath(const vector<Vec3>& start, const vector<Vec3>& end) {
    if (!pullsStructures())
        throw OpenMMException("setPath: the restraint '" + owner.getName() +
                              "' pulls the slow coordinates of bundle '" + owner.getBundle().name +
                              "', not structures; set its target parameters instead");
    size_t numAtoms = owner.getBundle().particles.size();
    if (start.size() != numAtoms || end.size() != numAtoms)
        throw OpenMMException("setPath: start and end must hold the " + to_string(numAtoms) +
                              " model atoms of bundle '" + owner.getBundle().name + "', got " +
                              to_string(start.size()) + " and " + to_string(end.size()));
    kernel.getAs<LatentRestraintKernel>().setPath(start, end);
    hasPath = true;
}

}  // namespace OpenMMLatent
