// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "JumpProposal.h"

#include <ATen/ATen.h>
#include <ATen/core/PhiloxRNGEngine.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>

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

/** What a jump changed: (1, n, 3) float32 twice -> (n, 3) float64. */
at::Tensor difference(const at::Tensor& moved, const at::Tensor& input) {
    if (!moved.is_cpu())
        return moved.sub(input).squeeze(0).to(at::kDouble);
    at::Tensor after = moved.contiguous(), result = at::empty({input.size(1), 3}, at::kDouble);
    const float *first = input.data_ptr<float>(), *last = after.data_ptr<float>();
    transform(last, last + input.numel(), first, result.data_ptr<double>(), minus<float>());
    return result;
}

}  // namespace

JumpProposal::JumpProposal(const LatentBundle& bundle, const vector<bool>& isFrozen, at::Device device)
        : runner(loadModule(bundle, device)), name(bundle.name), numNoise(bundle.numNoise),
          numPropagateNoise(bundle.numPropagateNoise), numProposeNoise(bundle.numProposeNoise),
          slowPeriods(bundle.slowPeriods), numAtoms((int64_t) bundle.particles.size()),
          wholeMolecules(bundle, bundle.riders, device), hasState(false) {
    at::Tensor mobile = at::ones({numAtoms, 1}, at::kDouble);
    for (int64_t i = 0; i < numAtoms; i++)
        if (isFrozen[bundle.particles[(size_t) i]])
            mobile[i] = 0.0;
    if (!mobile.all().item<bool>())
        mobility = mobile.to(device);
}

at::Tensor JumpProposal::displacements(at::Tensor& positions, const Vec3* box, int seed, long long number,
                                       double& moduleSeconds) {
    try {
        return propose(positions, box, seed, number, moduleSeconds);
    } catch (const OpenMMException&) {
        throw;  // the runner has said it
    } catch (const exception& error) {
        string text = error.what();
        throw OpenMMException("bundle '" + name + "' failed outside its module: " + text.substr(0, text.find('\n')));
    }
}

at::Tensor JumpProposal::propose(at::Tensor& positions, const Vec3* box, int seed, long long number,
                                 double& moduleSeconds) {
    c10::InferenceMode withoutGradients;
    at::Tensor input = prepareInput(positions, box);
    at::Tensor noise = makeNoise(seed, number, numNoise);  // (1, n_noise)
    auto start = chrono::steady_clock::now();
    at::Tensor moved = runner->jump(input, nextState, noise);
    moduleSeconds = chrono::duration<double>(chrono::steady_clock::now() - start).count();
    at::Tensor displacements = difference(moved, input);
    return mobility.defined() ? displacements.mul_(mobility) : displacements;
}

at::Tensor JumpProposal::prepareInput(at::Tensor& positions, const Vec3* box) {
    if (box != nullptr)
        wholeMolecules.mend(positions, box);
    at::Tensor input = centre(positions, numAtoms);  // (1, n_atoms, 3)
    nextState.clear();
    if (hasState)
        for (auto& tensor : state)
            nextState.push_back(tensor.clone());  // a module may change its state in place; a refusal must not
    else
        nextState = runner->initialState(input);
    return input;
}

at::Tensor JumpProposal::propagateSlow(at::Tensor& positions, const Vec3* box, int seed, long long number,
                                       double& moduleSeconds) {
    c10::InferenceMode withoutGradients;
    at::Tensor input = prepareInput(positions, box);
    at::Tensor noise = makeNoise(seed, number, numNoise).narrow(1, 0, numPropagateNoise);
    auto start = chrono::steady_clock::now();
    at::Tensor slow = runner->propagateSlow(input, nextState, noise);
    moduleSeconds = chrono::duration<double>(chrono::steady_clock::now() - start).count();
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

at::Tensor JumpProposal::makeNoise(int seed, long long number, int count) const {
    // The jump's number picks the subsequence, so that no draw depends on how many came before.
    at::Philox4_32 engine((uint64_t) (uint32_t) seed, (uint64_t) number);
    at::Tensor noise = at::empty({1, count}, at::kFloat);
    auto* values = noise.data_ptr<float>();
    for (int i = 0; i < count; i++)
        values[i] = engine.randn(10);
    return noise.to(runner->device());
}

void JumpProposal::commitState() {
    state = nextState;
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

bool isUsable(const at::Tensor& displacements) {
    // A NaN fails the comparison, too.
    if (!displacements.is_cpu())
        return displacements.numel() == 0 || displacements.abs().max().item<double>() < Farthest;
    const auto* values = displacements.data_ptr<double>();
    return all_of(values, values + displacements.numel(), [](double value) { return fabs(value) < Farthest; });
}

}  // namespace OpenMMLatent
