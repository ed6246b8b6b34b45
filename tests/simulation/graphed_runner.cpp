// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
// Drives GraphedRunner with a module and recordings of this file's own, so that its decisions are tested without a GPU.
// Prints a line a jump: its result, the next state, and how often the module ran and a recording was played.
#include "torch/GraphedRunner.h"

#include <ATen/ATen.h>

#include <iostream>
#include <stdexcept>

using namespace OpenMMLatent;
using namespace std;

namespace {

int numRuns = 0, numPlays = 0;
bool isRecording = false, isReplaying = false;

/** jump: positions + noise + state, and the state grows by one in place. */
class Adder : public ModuleRunner {
public:
    explicit Adder(string kind) : kind(std::move(kind)) {}
    at::Device device() const override { return at::kCPU; }
    ModelState initialState(const at::Tensor&) override { return {at::zeros({1, 1})}; }
    at::Tensor jump(const at::Tensor& positions, ModelState& state, const at::Tensor& noise) override {
        numRuns++;
        if (kind == "waits" && isRecording)
            throw runtime_error("operation not permitted when stream is capturing\nand a stack");
        if (kind == "takes a value" && isRecording)
            taken = noise.sum().item<double>();
        if (kind == "throws" && numRuns > 2)
            throw runtime_error("the module's own words");
        at::Tensor shift = isReplaying && kind == "takes a value" ? at::full({}, taken) : noise.sum();
        at::Tensor moved = positions + shift + state.at(0).sum();
        state[0].add_(1);
        return moved;
    }
    at::Tensor slow(const at::Tensor& positions) override { return positions; }
    pair<at::Tensor, at::Tensor> slowWithGradient(const at::Tensor& positions, const at::Tensor&,
                                                  const at::Tensor&) override {
        return {positions, positions};
    }
    at::Tensor propagateSlow(const at::Tensor& positions, ModelState&, const at::Tensor&) override {
        return positions;
    }
    at::Tensor propose(const at::Tensor& from, const at::Tensor&) override { return from; }
    double logDensity(const at::Tensor&, const at::Tensor&) override { return 0; }
    bool has(const string&) const override { return true; }
    string packState(const ModelState&) const override { return ""; }
    ModelState unpackState(const string&) const override { return {}; }

private:
    string kind;
    double taken = 0;
};

/** Plays by running what was recorded again; one that is stale leaves the memory as it was recorded. */
class Replay : public Recording {
public:
    explicit Replay(bool isStale) : isStale(isStale) {}
    void record(const function<void()>& work) override {
        body = work;
        run(isRecording);
    }
    void play() override {
        numPlays++;
        if (!isStale)
            run(isReplaying);
    }

private:
    void run(bool& phase) {
        phase = true;
        int before = numRuns;
        try {
            body();
        } catch (...) {
            phase = false;
            throw;
        }
        phase = false;
        numRuns = before;
    }

    bool isStale;
    function<void()> body;
};

}  // namespace

int main(int, char** arguments) {
    string kind = arguments[1];
    GraphedRunner runner("toy", make_unique<Adder>(kind), [&] { return make_unique<Replay>(kind == "stale"); });
    ModelState state = runner.initialState(at::zeros({1, 2, 3}));
    for (int number = 0; number < 8; number++) {
        int64_t frames = kind == "batches" ? 1 + number % 2 : 1;
        at::Tensor positions = at::full({frames, 2, 3}, 10.0 * number), noise = at::full({1, 1}, 0.5 * number), before = state[0];
        double kept = before.item<double>();
        try {
            at::Tensor moved = runner.jump(positions, state, noise);
            cout << moved[0][0][0].item<double>() << " " << state[0].item<double>() << " " << numRuns << " " << numPlays
                 << " " << (before.item<double>() == kept || state[0].is_same(before)) << endl;
        } catch (const exception& error) {
            cout << "threw: " << error.what() << endl;
        }
    }
}
