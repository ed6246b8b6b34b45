// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "JumpProposal.h"

#include <ATen/ATen.h>
#include <ATen/core/PhiloxRNGEngine.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <utility>

#include "openmm/OpenMMException.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

const double Farthest = 100.0;  // nm; a displacement beyond it is the mark of a model that has broken down

// On the host by hand: an operation on a small tensor takes a microsecond, on any other device a transfer takes more.

/** Shift rows (n, 3) float64 so that the first `numAtoms` have their centroid at 0; return these, (1, n_atoms, 3). */
at::Tensor centre(at::Tensor& positions, int64_t numAtoms) {
    if (!positions.is_cpu()) {
        positions.sub_(positions.narrow(0, 0, numAtoms).mean(0, true));
        return positions.narrow(0, 0, numAtoms).to(at::kFloat).unsqueeze(0);
    }
    auto* places = reinterpret_cast<Vec3*>(positions.data_ptr<double>());
    Vec3 centroid;
    for (int64_t i = 0; i < numAtoms; i++)
        centroid += places[i] / (double) numAtoms;
    for (int64_t i = 0; i < positions.size(0); i++)
        places[i] -= centroid;
    at::Tensor input = at::empty({1, numAtoms, 3}, at::kFloat);
    copy_n(positions.data_ptr<double>(), 3 * numAtoms, input.data_ptr<float>());
    return input;
}

/** What a jump changed: (b, n, 3) float32 twice -> (b, n, 3) float64. */
at::Tensor difference(const at::Tensor& moved, const at::Tensor& input) {
    if (!moved.is_cpu())
        return moved.sub(input).to(at::kDouble);
    at::Tensor after = moved.contiguous(), result = at::empty(input.sizes(), at::kDouble);
    const float *first = input.data_ptr<float>(), *last = after.data_ptr<float>();
    transform(last, last + input.numel(), first, result.data_ptr<double>(), minus<float>());
    return result;
}

/** For each of (b, n, 3) displacements, whether it is within reach; a NaN fails the comparison, too. */
vector<bool> areUsable(const at::Tensor& displacements) {
    vector<bool> usable;
    int64_t size = displacements.numel() / displacements.size(0);
    if (!displacements.is_cpu()) {
        at::Tensor largest = displacements.abs().flatten(1).amax(1).to(at::kCPU);  // the one wait for the device
        for (int64_t row = 0; row < largest.size(0); row++)
            usable.push_back(largest.data_ptr<double>()[row] < Farthest);
        return usable;
    }
    const auto* values = displacements.data_ptr<double>();
    for (int64_t row = 0; row < displacements.size(0); row++, values += size)
        usable.push_back(all_of(values, values + size, [](double value) { return fabs(value) < Farthest; }));
    return usable;
}

/** One tensor a walker, each of one row -> as many rows as each has candidates, joined. */
at::Tensor join(const vector<at::Tensor>& rows, const vector<WalkerFrame>& walkers) {
    vector<at::Tensor> repeated;
    for (size_t i = 0; i < rows.size(); i++) {
        vector<int64_t> sizes = rows[i].sizes().vec();
        sizes.at(0) = walkers[i].numCandidates;
        repeated.push_back(rows[i].expand(sizes));
    }
    return at::cat(repeated);
}

}  // namespace

JumpProposal::JumpProposal(const LatentBundle& bundle, unique_ptr<ModuleRunner> module, const vector<bool>& isFrozen)
        : runner(std::move(module)), name(bundle.name), numNoise(bundle.numNoise),
          numPropagateNoise(bundle.numPropagateNoise), numProposeNoise(bundle.numProposeNoise),
          slowPeriods(bundle.slowPeriods), numAtoms((int64_t) bundle.particles.size()),
          wholeMolecules(bundle, bundle.riders, runner->device()), hasState(false) {
    at::Tensor mobile = at::ones({numAtoms, 1}, at::kDouble);
    for (int64_t i = 0; i < numAtoms; i++)
        if (isFrozen[bundle.particles[(size_t) i]])
            mobile[i] = 0.0;
    if (!mobile.all().item<bool>())
        mobility = mobile.to(runner->device());
}

double JumpProposal::draw(vector<WalkerFrame>& walkers) {
    try {
        return drawTogether(walkers);
    } catch (const OpenMMException&) {
        throw;  // the runner has said it
    } catch (const exception& error) {
        string text = error.what();
        throw OpenMMException("bundle '" + name + "' failed outside its module: " + text.substr(0, text.find('\n')));
    }
}

double JumpProposal::drawTogether(vector<WalkerFrame>& walkers) {
    c10::InferenceMode withoutGradients;
    vector<at::Tensor> inputs, noises;
    vector<ModelState> states;
    for (auto& walker : walkers) {
        inputs.push_back(walker.proposal->prepareInput(walker.positions, walker.box));  // (1, n_atoms, 3)
        states.push_back(walker.proposal->presentState(inputs.back()));
        noises.push_back(makeNoise(walker.seed, walker.number, numNoise, walker.numCandidates));
    }
    at::Tensor input = inputs[0], noise = noises[0];
    ModelState state = states[0];
    // One frame and one candidate go as they are: each operation would cost a microsecond.
    if (walkers.size() > 1 || walkers[0].numCandidates > 1) {
        input = join(inputs, walkers);  // (n_candidates of all, n_atoms, 3)
        noise = at::cat(noises);        // (n_candidates of all, n_noise)
        for (size_t i = 0; i < state.size(); i++) {
            vector<at::Tensor> rows;
            for (auto& own : states)
                rows.push_back(own.at(i));
            state[i] = join(rows, walkers);
        }
    }
    auto start = chrono::steady_clock::now();
    at::Tensor moved = runner->jump(input, state, noise);
    double seconds = chrono::duration<double>(chrono::steady_clock::now() - start).count();
    at::Tensor displacements = difference(moved, input);
    keep(walkers, displacements, state);
    return seconds;
}

void JumpProposal::keep(const vector<WalkerFrame>& walkers, at::Tensor& displacements, ModelState& states) const {
    int64_t total = displacements.size(0), row = 0;
    for (auto& tensor : states)
        if (total > 1 && (tensor.dim() == 0 || tensor.size(0) != total))
            throw OpenMMException("bundle '" + name + "': jump of " + to_string(total) +
                                  " frames must return a state of as many rows, got another shape; export it again");
    vector<at::Tensor> rows;
    for (auto& walker : walkers)
        for (int i = 0; i < walker.numCandidates; i++, row++) {
            rows.push_back(displacements.select(0, row));  // (n_atoms, 3)
            if (walker.proposal->mobility.defined())
                rows.back().mul_(walker.proposal->mobility);
        }
    row = 0;
    for (auto& walker : walkers) {
        JumpProposal& own = *walker.proposal;
        own.frame = walker.positions;
        own.candidates.clear();
        for (int i = 0; i < walker.numCandidates; i++, row++) {
            own.candidates.push_back({rows[(size_t) row], false, {}});
            for (auto& tensor : states)
                own.candidates.back().state.push_back(total == 1 ? tensor : tensor.narrow(0, row, 1).clone());
        }
    }
    // Last, as it waits for the device: other walkers' streams may then use what this one made.
    vector<bool> usable = areUsable(displacements);
    row = 0;
    for (auto& walker : walkers)
        for (auto& candidate : walker.proposal->candidates)
            candidate.isUsable = usable[(size_t) row++];
}

at::Tensor JumpProposal::prepareInput(at::Tensor& positions, const Vec3* box) const {
    if (box != nullptr)
        wholeMolecules.mend(positions, box);
    return centre(positions, numAtoms);  // (1, n_atoms, 3)
}

ModelState JumpProposal::presentState(const at::Tensor& input) const {
    if (!hasState)
        return runner->initialState(input);
    ModelState copies;
    for (auto& tensor : state)
        copies.push_back(tensor.clone());  // a module may change its state in place; a refusal must not
    return copies;
}

at::Tensor JumpProposal::propagateSlow(at::Tensor& positions, const Vec3* box, int seed, long long number,
                                       double& moduleSeconds) {
    c10::InferenceMode withoutGradients;
    at::Tensor input = prepareInput(positions, box);
    at::Tensor noise = makeNoise(seed, number, numNoise).narrow(1, 0, numPropagateNoise);
    ModelState next = presentState(input);
    auto start = chrono::steady_clock::now();
    at::Tensor slow = runner->propagateSlow(input, next, noise);
    moduleSeconds = chrono::duration<double>(chrono::steady_clock::now() - start).count();
    candidates = {{at::Tensor(), true, next}};
    return slow.squeeze(0).to(at::kCPU, at::kDouble);
}

double JumpProposal::proposeExact(const vector<double>& slow, double sigma, int seed, JumpRecord& record) {
    c10::InferenceMode withoutGradients;
    auto start = chrono::steady_clock::now();
    auto numSlow = (int) slow.size();
    // One draw for the first centre, the proposal and the test.
    at::Tensor noise = makeNoise(seed, record.number, numSlow + numProposeNoise + 1);
    at::Tensor first = noise.narrow(1, 0, numSlow).to(at::kCPU, at::kDouble);
    record.from.resize(numSlow);
    record.to.resize(numSlow);
    for (int i = 0; i < numSlow; i++) {
        double step = sigma * first[0][i].item<double>(), centre = slow[i] + step;
        if (slowPeriods[i] > 0 && fabs(step) > slowPeriods[i] / 2) {
            record.from.clear();
            record.to.clear();
            return 2;
        }
        if (slowPeriods[i] > 0)
            centre -= slowPeriods[i] * round(centre / slowPeriods[i]);
        record.from[i] = (float) centre;  // what the module sees is what the restraint uses
    }
    at::Tensor from = at::tensor(record.from, at::kFloat).unsqueeze(0).to(runner->device());
    at::Tensor to = runner->propose(from, noise.narrow(1, numSlow, numProposeNoise));
    at::Tensor proposed = to.to(at::kCPU, at::kDouble);
    for (int i = 0; i < numSlow; i++)
        record.to[i] = proposed[0][i].item<double>();
    record.logProposalRatio = runner->logDensity(from, to) - runner->logDensity(to, from);
    record.moduleSeconds = chrono::duration<double>(chrono::steady_clock::now() - start).count();
    bool isFinite = proposed.isfinite().all().item<bool>() && isfinite(record.logProposalRatio);
    double normal = noise[0][numSlow + numProposeNoise].item<double>();
    return isFinite ? 0.5 * erfc(-normal / sqrt(2.0)) : -1;
}

at::Tensor JumpProposal::makeNoise(int seed, long long number, int count, int numCandidates) const {
    at::Tensor noise = at::empty({numCandidates, count}, at::kFloat);
    auto* values = noise.data_ptr<float>();
    for (int candidate = 0; candidate < numCandidates; candidate++) {
        // The jump's number picks the subsequence, so that no draw depends on how many came before, and the candidate
        // the place in it at which to begin, 2^40 numbers after the one before.
        at::Philox4_32 engine((uint64_t) (uint32_t) seed, (uint64_t) number, (uint64_t) candidate << 40);
        for (int i = 0; i < count; i++)
            *values++ = engine.randn(10);
    }
    return noise.to(runner->device());
}

void JumpProposal::commitState(int candidate) {
    state = candidates[(size_t) candidate].state;
    hasState = true;
}

void JumpProposal::resetState() {
    state.clear();
    hasState = false;
}

string JumpProposal::getState() const { return hasState ? runner->packState(state) : ""; }

void JumpProposal::setState(const string& bytes) {
    hasState = !bytes.empty();
    state = hasState ? runner->unpackState(bytes) : ModelState();
}

}  // namespace OpenMMLatent
