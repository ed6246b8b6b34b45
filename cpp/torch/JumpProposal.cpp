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
          numAtoms((int64_t) bundle.particles.size()), wholeMolecules(bundle, bundle.riders, device), hasState(false) {
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
        wholeMolecules.mend(positions, box);
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
