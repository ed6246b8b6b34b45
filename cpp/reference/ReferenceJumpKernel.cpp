// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include <ATen/ATen.h>

#include <chrono>

#include "ReferenceKernels.h"
#include "torch/TorchJumpKernel.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

/** An orthonormal frame on three points; false if they are (nearly) on a line. */
bool localFrame(const Vec3& origin, const Vec3& axis, const Vec3& plane, Vec3 frame[3]) {
    Vec3 first = axis - origin, third = first.cross(plane - origin);
    double firstLength = sqrt(first.dot(first)), thirdLength = sqrt(third.dot(third));
    if (thirdLength < 1e-4 * firstLength * firstLength || firstLength == 0)
        return false;
    frame[0] = first / firstLength;
    frame[2] = third / thirdLength;
    frame[1] = frame[2].cross(frame[0]);
    return true;
}

class ReferenceJumpKernel : public TorchJumpKernel {
public:
    using TorchJumpKernel::TorchJumpKernel;

    void initialize(const System& system, const LatentIntegrator& integrator) override {
        loadProposals(system, integrator, at::kCPU);
    }

    void save(ContextImpl& context) override {
        auto& data = platformData(context);
        savedPositions = *data.positions;
        savedVelocities = *data.velocities;
        copy(data.periodicBoxVectors, data.periodicBoxVectors + 3, savedBox);
    }

    void restore(ContextImpl& context) override {
        auto& data = platformData(context);
        *data.positions = savedPositions;
        *data.velocities = savedVelocities;
        context.setPeriodicBoxVectors(savedBox[0], savedBox[1], savedBox[2]);
    }

    bool move(ContextImpl& context, int candidate, JumpRecord& record) override {
        const JumpProposal& proposal = *proposals[record.bundle];
        if (!proposal.isUsable(candidate))
            return false;
        auto start = chrono::steady_clock::now();
        apply(*bundles[record.bundle], reinterpret_cast<const Vec3*>(proposal.places().data_ptr<double>()),
              reinterpret_cast<const Vec3*>(proposal.displacements(candidate).data_ptr<double>()),
              *platformData(context).positions);
        record.scatterSeconds += chrono::duration<double>(chrono::steady_clock::now() - start).count();
        return true;
    }

protected:
    at::Tensor gather(ContextImpl& context, int index) override {
        auto& data = platformData(context);
        const LatentBundle& bundle = *bundles[index];
        copy(data.periodicBoxVectors, data.periodicBoxVectors + 3, box);
        at::Tensor gathered = at::empty({(int64_t) (bundle.particles.size() + bundle.riders.size()), 3}, at::kDouble);
        auto* places = reinterpret_cast<Vec3*>(gathered.data_ptr<double>());
        for (int particle : bundle.particles)
            *places++ = (*data.positions)[particle];
        for (auto& rider : bundle.riders)
            *places++ = (*data.positions)[rider.particle];
        return gathered;
    }

private:
    /** `places` holds the model atoms, then the riders, whole; positions may be broken by periodic images. */
    void apply(const LatentBundle& bundle, const Vec3* places, const Vec3* displacements,
               vector<Vec3>& positions) const {
        size_t numAtoms = bundle.particles.size();
        for (size_t i = 0; i < numAtoms; i++)
            positions[bundle.particles[i]] += displacements[i];
        for (size_t i = 0; i < bundle.riders.size(); i++)
            if (!isFrozen[bundle.riders[i].particle])
                positions[bundle.riders[i].particle] +=
                    riderDisplacement(bundle.riders[i], places[numAtoms + i], places, displacements);
    }

    static Vec3 riderDisplacement(const Rider& rider, const Vec3& place, const Vec3* places,
                                  const Vec3* displacements) {
        if (rider.axis < 0)
            return displacements[rider.origin];
        const Vec3 &origin = places[rider.origin], &axis = places[rider.axis], &plane = places[rider.plane];
        Vec3 before[3], after[3];
        if (!localFrame(origin, axis, plane, before) ||
            !localFrame(origin + displacements[rider.origin], axis + displacements[rider.axis],
                        plane + displacements[rider.plane], after))
            return displacements[rider.origin];
        Vec3 arm = place - origin, turned;
        for (int k = 0; k < 3; k++)
            turned += after[k] * arm.dot(before[k]);
        return displacements[rider.origin] + turned - arm;
    }

    vector<Vec3> savedPositions, savedVelocities;
    Vec3 savedBox[3];
};

}  // namespace

KernelImpl* createReferenceJumpKernel(const Platform& platform) {
    return new ReferenceJumpKernel(LatentJumpKernel::Name(), platform);
}

}  // namespace OpenMMLatent
