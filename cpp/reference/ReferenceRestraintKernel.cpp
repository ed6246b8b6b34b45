// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include <ATen/ATen.h>

#include "ReferenceKernels.h"
#include "openmm_latent/LatentRestraintForce.h"
#include "openmm_latent/LatentRestraintKernel.h"
#include "torch/RestraintEvaluator.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

class ReferenceRestraintKernel : public LatentRestraintKernel {
public:
    using LatentRestraintKernel::LatentRestraintKernel;

    void initialize(const System& system, const LatentRestraintForce& force) override {
        particles = force.getBundle().particles;
        evaluator = make_unique<RestraintEvaluator>(force.getBundle(), force.getWeights(), at::kCPU);
        isPeriodic = system.usesPeriodicBoundaryConditions();
    }

    double execute(ContextImpl& context, bool includeForces, double stiffness, const vector<double>& target) override {
        auto& data = platformData(context);
        at::Tensor positions = gather(data), forces;
        double energy = evaluator->evaluate(positions, box(data), stiffness, target, includeForces ? &forces : nullptr);
        if (includeForces) {
            forces = forces.contiguous();
            auto* pulls = reinterpret_cast<const Vec3*>(forces.data_ptr<double>());
            for (size_t i = 0; i < particles.size(); i++)
                (*data.forces)[particles[i]] += pulls[i];
        }
        return energy;
    }

    vector<double> getSlow(ContextImpl& context) override {
        auto& data = platformData(context);
        at::Tensor positions = gather(data);
        return evaluator->slow(positions, box(data));
    }

    void setPath(const vector<Vec3>& start, const vector<Vec3>& end) override { evaluator->setPath(start, end); }

private:
    at::Tensor gather(ReferencePlatform::PlatformData& data) const {
        at::Tensor gathered = at::empty({(int64_t) particles.size(), 3}, at::kDouble);
        auto* places = reinterpret_cast<Vec3*>(gathered.data_ptr<double>());
        for (size_t i = 0; i < particles.size(); i++)
            places[i] = (*data.positions)[particles[i]];
        return gathered;
    }

    const Vec3* box(ReferencePlatform::PlatformData& data) const {
        return isPeriodic ? data.periodicBoxVectors : nullptr;
    }

    vector<int> particles;
    unique_ptr<RestraintEvaluator> evaluator;
    bool isPeriodic = false;
};

}  // namespace

KernelImpl* createReferenceRestraintKernel(const Platform& platform) {
    return new ReferenceRestraintKernel(LatentRestraintKernel::Name(), platform);
}

}  // namespace OpenMMLatent
