// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "JumpProposal.h"

#include <ATen/ATen.h>
#include <ATen/core/PhiloxRNGEngine.h>
#include <c10/core/InferenceMode.h>

#include <chrono>
#include <cmath>

#include "openmm/OpenMMException.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

const double Farthest = 100.0;  // nm; a displacement beyond it is the mark of a model that has broken down

}  // namespace

JumpProposal::JumpProposal(const LatentBundle& bundle, const vector<bool>& isFrozen, at::Device device)
        : runner(loadTorchScript(bundle.name, bundle.archive, device)), name(bundle.name), numNoise(bundle.numNoise),
          numAtoms((int64_t) bundle.particles.size()), hasState(false) {
    wholeParent = at::arange(numAtoms + (int64_t) bundle.riders.size(), at::kLong);
    auto* parents = wholeParent.data_ptr<int64_t>();
    for (size_t i = 0; i < bundle.wholeParent.size(); i++)
        if (bundle.wholeParent[i] >= 0)
            parents[i] = bundle.wholeParent[i];
    for (size_t i = 0; i < bundle.riders.size(); i++)
        parents[numAtoms + (int64_t) i] = bundle.riders[i].origin;
    wholeParent = wholeParent.to(device);
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
    if (box != nullptr)
        makeWhole(positions, box);
    positions.sub_(positions.narrow(0, 0, numAtoms).mean(0, true));
    at::Tensor input = positions.narrow(0, 0, numAtoms).to(at::kFloat).unsqueeze(0);  // (1, n_atoms, 3)
    at::Tensor noise = makeNoise(seed, number);                                       // (1, n_noise)
    nextState.clear();
    if (hasState)
        for (auto& tensor : state)
            nextState.push_back(tensor.clone());  // a module may change its state in place; a refusal must not
    else
        nextState = runner->initialState(input);
    auto start = chrono::steady_clock::now();
    at::Tensor moved = runner->jump(input, nextState, noise);
    moduleSeconds = chrono::duration<double>(chrono::steady_clock::now() - start).count();
    at::Tensor displacements = moved.sub(input).squeeze(0).to(at::kDouble);
    return mobility.defined() ? displacements.mul_(mobility) : displacements;
}

void JumpProposal::makeWhole(at::Tensor& positions, const Vec3* box) const {
    // Whole numbers of box vectors between each atom and its parent; in reduced form, so row by row from the last.
    at::Tensor delta = positions - positions.index_select(0, wholeParent);
    at::Tensor shift = at::zeros_like(delta);
    for (int axis = 2; axis >= 0; axis--) {
        at::Tensor count = at::round(delta.select(1, axis) / box[axis][axis]).unsqueeze(1);  // (n_atoms, 1)
        at::Tensor vector = at::tensor({box[axis][0], box[axis][1], box[axis][2]}, positions.options()).unsqueeze(0);
        delta.sub_(count * vector);
        shift.sub_(count * vector);
    }
    // Sum the shifts along each chain of parents, doubling the stride: log2(longest chain) rounds.
    at::Tensor parent = wholeParent;
    for (int64_t reach = 1; reach < positions.size(0); reach *= 2) {
        shift = shift + shift.index_select(0, parent);
        parent = parent.index_select(0, parent);
    }
    positions.add_(shift);
}

at::Tensor JumpProposal::makeNoise(int seed, long long number) const {
    // The jump's number picks the subsequence, so that no draw depends on how many came before.
    at::Philox4_32 engine((uint64_t) (uint32_t) seed, (uint64_t) number);
    at::Tensor noise = at::empty({1, numNoise}, at::kFloat);
    auto* values = noise.data_ptr<float>();
    for (int i = 0; i < numNoise; i++)
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
    return displacements.numel() == 0 || displacements.abs().max().item<double>() < Farthest;
}

}  // namespace OpenMMLatent
