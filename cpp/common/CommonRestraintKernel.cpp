// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "CommonRestraintKernel.h"

#include <ATen/ATen.h>

#include "restraintKernel.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

/** Whether every model atom hangs, by way of its parents, on one and the same. */
bool hangTogether(const LatentBundle& bundle) {
    int numRoots = (int) (bundle.particles.size() - bundle.wholeParent.size());
    for (int parent : bundle.wholeParent)
        numRoots += parent < 0;
    return numRoots == 1;
}

}  // namespace

void CommonRestraintKernel::initialize(const System& system, const LatentRestraintForce& force) {
    const LatentBundle& bundle = force.getBundle();
    isPeriodic = system.usesPeriodicBoundaryConditions();
    evaluator = make_unique<RestraintEvaluator>(bundle, force.getWeights(), device());
    ContextSelector selector(cc);
    // Atoms that hang together are made whole from any image, which spares sending the images of all atoms each step.
    gather.initialize(cc, bundle.particles, isPeriodic && !hangTogether(bundle));
    forces.initialize(cc, gather.gathered.getSize(), sizeOfPos(cc), "latentForces");
    map<string, string> defines = kernelDefines(cc);
    defines["PADDED_NUM_ATOMS"] = cc.intToString(cc.getPaddedNumAtoms());
    addForces = cc.compileProgram(RestraintKernelSource, defines)->createKernel("addForces");
    addForces->addArg(cc.getLongForceBuffer());
    addForces->addArg(cc.getAtomIndexArray());
    addForces->addArg(gather.place);
    addForces->addArg(forces);
}

double CommonRestraintKernel::execute(ContextImpl&, bool includeForces, double stiffness,
                                      const vector<double>& target) {
    Vec3 box[3];
    {
        ContextSelector selector(cc);
        gather.execute(box);
    }
    double energy = evaluate(isPeriodic ? box : nullptr, includeForces, stiffness, target);
    if (includeForces) {
        ContextSelector selector(cc);
        addForces->execute(cc.getNumAtoms());
    }
    return energy;
}

vector<double> CommonRestraintKernel::getSlow(ContextImpl&) {
    Vec3 box[3];
    {
        ContextSelector selector(cc);
        gather.execute(box);
    }
    return slow(isPeriodic ? box : nullptr);
}

at::Tensor CommonRestraintKernel::download() {
    at::Tensor positions = at::empty({gather.getNumGathered(), 3}, usesDoubles(cc) ? at::kDouble : at::kFloat);
    ContextSelector selector(cc);
    gather.gathered.download(positions.data_ptr(), true);
    return positions.to(at::kDouble);
}

double CommonRestraintKernel::evaluate(const Vec3* box, bool includeForces, double stiffness,
                                       const vector<double>& target) {
    at::Tensor positions = download(), pulls;
    double energy = evaluator->evaluate(positions, box, stiffness, target, includeForces ? &pulls : nullptr);
    if (includeForces) {
        pulls = pulls.to(usesDoubles(cc) ? at::kDouble : at::kFloat).contiguous();
        ContextSelector selector(cc);
        forces.upload(pulls.data_ptr(), true);
    }
    return energy;
}

vector<double> CommonRestraintKernel::slow(const Vec3* box) {
    at::Tensor positions = download();
    return evaluator->slow(positions, box);
}

}  // namespace OpenMMLatent
