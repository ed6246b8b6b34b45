// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "TorchJumpKernel.h"

#include <ATen/ATen.h>

#include <chrono>

#include "openmm/OpenMMException.h"
#include "openmm/internal/ContextImpl.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

void TorchJumpKernel::propose(const vector<JumpRequest>& requests) {
    auto start = chrono::steady_clock::now();
    int bundle = requests[0].record->bundle;
    double moduleSeconds = 0;
    runTorch([&] {
        vector<WalkerFrame> frames;
        for (auto& request : requests) {
            auto& walker = dynamic_cast<TorchJumpKernel&>(*request.kernel);
            if (walker.place != place)
                throw OpenMMException("jumpTogether: all walkers must be on one device, got " + place.str() + " and " +
                                      walker.place.str() + "; make a group for each");
            at::Tensor positions = walker.gather(*request.context, bundle);
            frames.push_back({walker.proposals[bundle].get(), positions, walker.isPeriodic ? walker.box : nullptr,
                              request.seed, request.record->number, request.numCandidates});
        }
        moduleSeconds = proposals[bundle]->draw(frames);
    });
    double seconds = chrono::duration<double>(chrono::steady_clock::now() - start).count();
    for (auto& request : requests) {
        request.record->moduleSeconds = moduleSeconds / (double) requests.size();
        // Centring, noise and the cast are the contract's share of gathering.
        request.record->gatherSeconds = (seconds - moduleSeconds) / (double) requests.size();
    }
}

// Proposals of driven jumps go by way of the host on every platform: a drive takes hundreds of MD steps.

at::Tensor TorchJumpKernel::gatherOnHost(ContextImpl& context, const LatentBundle& bundle) {
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
    bool isFinite = false;
    runTorch([&] {
        at::Tensor positions = gatherOnHost(context, *bundles[record.bundle]);
        at::Tensor slow = proposals[record.bundle]->propagateSlow(positions, isPeriodic ? box : nullptr, seed,
                                                                  record.number, record.moduleSeconds);
        at::Tensor values = slow.contiguous();
        record.to.assign(values.data_ptr<double>(), values.data_ptr<double>() + values.numel());
        isFinite = values.isfinite().all().item<bool>();
    });
    return isFinite;
}

bool TorchJumpKernel::proposeStructure(ContextImpl& context, int seed, JumpRecord& record, vector<Vec3>& from,
                                       vector<Vec3>& to) {
    JumpProposal& proposal = *proposals[record.bundle];
    runTorch([&] {
        at::Tensor positions = gatherOnHost(context, *bundles[record.bundle]);
        vector<WalkerFrame> frames = {{&proposal, positions, isPeriodic ? box : nullptr, seed, record.number, 1}};
        record.moduleSeconds = proposal.draw(frames);
        if (!proposal.isUsable(0))
            return;
        const at::Tensor& displacements = proposal.displacements(0);
        at::Tensor start = proposal.places().narrow(0, 0, displacements.size(0)).to(at::kCPU).contiguous();
        at::Tensor end = (start + displacements.to(at::kCPU)).contiguous();
        auto* first = reinterpret_cast<const Vec3*>(start.data_ptr<double>());
        auto* last = reinterpret_cast<const Vec3*>(end.data_ptr<double>());
        from.assign(first, first + start.size(0));
        to.assign(last, last + end.size(0));
    });
    return proposal.isUsable(0);
}

double TorchJumpKernel::proposeExact(const vector<double>& slow, double sigma, int seed, JumpRecord& record) {
    double uniform = 0;
    runTorch([&] { uniform = proposals[record.bundle]->proposeExact(slow, sigma, seed, record); });
    return uniform;
}

string TorchJumpKernel::getState(int bundle) const {
    string bytes;
    runTorch([&] { bytes = proposals[bundle]->getState(); });
    return bytes;
}

void TorchJumpKernel::setState(int bundle, const string& bytes) {
    runTorch([&] { proposals[bundle]->setState(bytes); });
}

}  // namespace OpenMMLatent
