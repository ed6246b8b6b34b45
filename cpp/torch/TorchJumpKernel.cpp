// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
// Proposals of driven jumps. They go by way of the host on every platform: a drive takes hundreds of MD steps.
#include "TorchJumpKernel.h"

#include <ATen/ATen.h>

#include "openmm/internal/ContextImpl.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

at::Tensor TorchJumpKernel::gather(ContextImpl& context, const LatentBundle& bundle) {
    vector<Vec3> positions;
    context.getPositions(positions);
    context.getPeriodicBoxVectors(box[0], box[1], box[2]);
    at::Tensor gathered = at::empty({(int64_t) (bundle.particles.size() + bundle.riders.size()), 3}, at::kDouble);
    auto* places = reinterpret_cast<Vec3*>(gathered.data_ptr<double>());
    for (int particle : bundle.particles)
        *places++ = positions[particle];
    for (auto& rider : bundle.riders)
        *places++ = positions[rider.particle];
    return gathered.to(place);
}

bool TorchJumpKernel::proposeSlow(ContextImpl& context, int seed, JumpRecord& record) {
    at::Tensor positions = gather(context, *bundles[record.bundle]);
    at::Tensor slow = proposals[record.bundle]->propagateSlow(positions, isPeriodic ? box : nullptr, seed,
                                                              record.number, record.moduleSeconds);
    at::Tensor values = slow.contiguous();
    record.to.assign(values.data_ptr<double>(), values.data_ptr<double>() + values.numel());
    return values.isfinite().all().item<bool>();
}

bool TorchJumpKernel::proposeStructure(ContextImpl& context, int seed, JumpRecord& record, vector<Vec3>& from,
                                       vector<Vec3>& to) {
    at::Tensor positions = gather(context, *bundles[record.bundle]);
    at::Tensor displacements = proposals[record.bundle]->displacements(positions, isPeriodic ? box : nullptr, seed,
                                                                       record.number, record.moduleSeconds);
    if (!isUsable(displacements))
        return false;
    at::Tensor start = positions.narrow(0, 0, displacements.size(0)).to(at::kCPU).contiguous();
    at::Tensor end = (start + displacements.to(at::kCPU)).contiguous();
    auto* first = reinterpret_cast<const Vec3*>(start.data_ptr<double>());
    auto* last = reinterpret_cast<const Vec3*>(end.data_ptr<double>());
    from.assign(first, first + start.size(0));
    to.assign(last, last + end.size(0));
    return true;
}

}  // namespace OpenMMLatent
