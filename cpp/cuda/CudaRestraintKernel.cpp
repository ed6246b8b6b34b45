// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "CudaRestraintKernel.h"

#include <ATen/ATen.h>

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

CudaRestraintKernel::~CudaRestraintKernel() {
    PrimaryContext scope(torchStream.context(), nothrow);
    evaluator.reset();  // the module's weights live in the primary context
}

void CudaRestraintKernel::initialize(const System& system, const LatentRestraintForce& force) {
    PrimaryContext scope(torchStream.context());
    CommonRestraintKernel::initialize(system, force);
    torchStream.open();
}

void CudaRestraintKernel::setPath(const vector<Vec3>& start, const vector<Vec3>& end) {
    torchStream.run([&] {
        evaluator->setPath(start, end);
        return true;
    });
}

double CudaRestraintKernel::evaluate(const Vec3* box, bool includeForces, double stiffness,
                                     const vector<double>& target) {
    return torchStream.run([&] {
        at::Tensor places = positions().to(at::kDouble, false, true), pulls;
        double energy = evaluator->evaluate(places, box, stiffness, target, includeForces ? &pulls : nullptr);
        if (includeForces)
            torchStream.view(forces, gather.getNumGathered()).copy_(pulls, true);
        return energy;
    });
}

vector<double> CudaRestraintKernel::slow(const Vec3* box) {
    return torchStream.run([&] {
        at::Tensor places = positions().to(at::kDouble, false, true);
        return evaluator->slow(places, box);
    });
}

}  // namespace OpenMMLatent
