// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "GraphedRunner.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <utility>

using namespace std;

namespace OpenMMLatent {

namespace {

const int WarmUps = 2;          // jumps of a shape before it is recorded
const int Comparisons = 2;      // jumps of a recording that the module checks
const size_t MostShapes = 8;    // each recording keeps the memory of a whole jump
const double Tolerance = 1e-5;  // nm, and of a state's tensors, beside 1e-4 of their values

bool areSame(const vector<at::Tensor>& found, const vector<at::Tensor>& expected) {
    bool isSame = found.size() == expected.size();
    for (size_t i = 0; isSame && i < found.size(); i++)
        isSame = found[i].sizes() == expected[i].sizes() && at::allclose(found[i], expected[i], 1e-4, Tolerance, true);
    return isSame;
}

}  // namespace

GraphedRunner::GraphedRunner(string name, unique_ptr<ModuleRunner> runner,
                             function<unique_ptr<Recording>()> makeRecording)
        : name(std::move(name)), runner(std::move(runner)), makeRecording(std::move(makeRecording)) {}

at::Tensor GraphedRunner::jump(const at::Tensor& positions, ModelState& state, const at::Tensor& noise) {
    c10::InferenceMode withoutGradients;
    if (!isPlayable)
        return runner->jump(positions, state, noise);
    vector<at::Tensor> inputs = {positions, noise};
    inputs.insert(inputs.end(), state.begin(), state.end());
    vector<vector<int64_t>> shapes;
    for (auto& input : inputs)
        shapes.push_back(input.sizes().vec());
    if (jumps.size() == MostShapes && jumps.count(shapes) == 0)
        return runner->jump(positions, state, noise);
    RecordedJump& recorded = jumps[shapes];
    if (recorded.numWarmUps < WarmUps) {
        recorded.numWarmUps++;
        return runner->jump(positions, state, noise);
    }
    vector<at::Tensor> outputs;
    try {
        if (!recorded.recording)
            record(recorded, inputs);
        outputs = play(recorded, inputs);
    } catch (const exception& error) {
        giveUp(error.what());
        return runner->jump(positions, state, noise);  // throws what the module throws
    }
    if (recorded.numCompared < Comparisons) {
        recorded.numCompared++;
        vector<at::Tensor> expected = runPlainly(inputs);
        if (!areSame(outputs, expected))
            giveUp("what it plays back is not what the module gives");
        outputs = expected;
    }
    state.assign(outputs.begin() + 1, outputs.end());
    return outputs[0];
}

void GraphedRunner::record(RecordedJump& recorded, const vector<at::Tensor>& inputs) {
    for (auto& input : inputs)
        recorded.inputs.push_back(input.clone());
    auto recording = makeRecording();
    recording->record([&] {
        ModelState state(recorded.inputs.begin() + 2, recorded.inputs.end());
        at::Tensor moved = runner->jump(recorded.inputs[0], state, recorded.inputs[1]);
        recorded.outputs = {moved};
        recorded.outputs.insert(recorded.outputs.end(), state.begin(), state.end());
    });
    recorded.recording = std::move(recording);
}

vector<at::Tensor> GraphedRunner::play(RecordedJump& recorded, const vector<at::Tensor>& inputs) {
    for (size_t i = 0; i < inputs.size(); i++)
        recorded.inputs[i].copy_(inputs[i], true);
    recorded.recording->play();
    vector<at::Tensor> copies;
    for (auto& output : recorded.outputs)
        copies.push_back(output.clone());
    return copies;
}

vector<at::Tensor> GraphedRunner::runPlainly(const vector<at::Tensor>& inputs) {
    ModelState state;
    for (size_t i = 2; i < inputs.size(); i++)
        state.push_back(inputs[i].clone());  // a module may change its state in place
    vector<at::Tensor> outputs = {runner->jump(inputs[0], state, inputs[1])};
    outputs.insert(outputs.end(), state.begin(), state.end());
    return outputs;
}

void GraphedRunner::giveUp(const string& reason) {
    isPlayable = false;
    jumps.clear();
    TORCH_WARN("openmm-latent: jumps of bundle '", name,
               "' are not played from recordings (CUDA graphs), but launched ",
               "kernel by kernel: ", reason.substr(0, reason.find('\n')));
}

}  // namespace OpenMMLatent
