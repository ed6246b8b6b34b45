// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
// The only C++ file that calls torch::jit.
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/passes/freeze_module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/pickle.h>
#include <torch/script.h>

#include <sstream>

#include "ModuleRunner.h"
#include "openmm/OpenMMException.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

const vector<string> Methods = {"jump", "initial_state", "encode", "slow", "propagate", "propose", "log_density"};

/** The first line of torch's message, without the stack of C++ frames that follows. */
string firstLine(const exception& error) {
    string text = error.what();
    // TorchScript puts the reason last, behind the traceback of the scripted code.
    size_t reason = text.rfind("RuntimeError: ");
    if (reason != string::npos)
        text = text.substr(reason + 14);
    return text.substr(0, text.find('\n'));
}

class TorchScriptRunner : public ModuleRunner {
public:
    TorchScriptRunner(const LatentBundle& bundle, at::Device device) : name(bundle.name), place(device) {
        guarded("cannot be loaded, it is damaged or no TorchScript archive", [&] {
            istringstream stream(bundle.archive);
            module = torch::jit::load(stream, device);
            module.eval();
            if (!bundle.proposalWeights.empty())
                module.setattr("proposal_weights", at::tensor(bundle.proposalWeights, at::kFloat).to(device));
            vector<string> present;
            for (auto& method : Methods)
                if (has(method))
                    present.push_back(method);
            // Not torch::jit::freeze, which insists on a method called forward.
            module = torch::jit::freeze_module(module, present);
        });
        for (const char* method : {"jump", "initial_state"})
            if (!has(method))
                throw OpenMMException("bundle '" + name + "' has no method '" + method +
                                      "'; export it with openmm_latent.export_bundle");
        vector<double> turnsPerUnit;
        for (double period : bundle.slowPeriods)
            turnsPerUnit.push_back(period > 0 ? 1 / period : 0);
        periods = at::tensor(bundle.slowPeriods, at::kFloat).unsqueeze(0).to(device);
        turns = at::tensor(turnsPerUnit, at::kFloat).unsqueeze(0).to(device);
    }

    at::Device device() const override { return place; }

    ModelState initialState(const at::Tensor& positions) override {
        ModelState state;
        guarded("failed in initial_state", [&] { state = call("initial_state", {positions}).toTensorVector(); });
        return state;
    }

    at::Tensor jump(const at::Tensor& positions, ModelState& state, const at::Tensor& noise) override {
        at::Tensor moved;
        guarded("failed in jump", [&] {
            c10::IValue result = call("jump", {positions, c10::List<at::Tensor>(state), noise});
            auto& elements = result.toTupleRef().elements();
            moved = elements[0].toTensor();
            state = elements[1].toTensorVector();
        });
        if (moved.sizes() != positions.sizes() || moved.scalar_type() != at::kFloat)
            throw OpenMMException("bundle '" + name + "': jump must return float32 (" + to_string(positions.size(0)) +
                                  ", " + to_string(positions.size(1)) +
                                  ", 3), got another shape or type; export it again");
        return moved;
    }

    at::Tensor slow(const at::Tensor& positions) override {
        at::Tensor coordinates;
        guarded("failed in slow", [&] { coordinates = call("slow", {call("encode", {positions})}).toTensor(); });
        return coordinates;
    }

    pair<at::Tensor, at::Tensor> slowWithGradient(const at::Tensor& positions, const at::Tensor& target,
                                                  const at::Tensor& strengths) override {
        pair<at::Tensor, at::Tensor> result;
        guarded("failed in slow", [&] {
            torch::jit::GraphOptimizerEnabledGuard withoutOptimizer(false);
            c10::InferenceMode normalTensors(false);
            at::AutoGradMode withGradients(true);
            at::Tensor input = positions.detach().clone().requires_grad_(true);
            at::Tensor coordinates = module.get_method("slow")({module.get_method("encode")({input})}).toTensor();
            at::Tensor fixed = coordinates.detach();
            at::Tensor away = fixed - target;
            at::Tensor pull = strengths * (away - periods * at::round(away * turns));  // the short way round
            result = {fixed, torch::autograd::grad({coordinates}, {input}, {pull})[0]};
        });
        return result;
    }

    at::Tensor propagateSlow(const at::Tensor& positions, ModelState& state, const at::Tensor& noise) override {
        at::Tensor coordinates;
        guarded("failed in propagate", [&] {
            c10::IValue latent = call("encode", {positions});
            c10::IValue result = call("propagate", {latent, c10::List<at::Tensor>(state), noise});
            auto& elements = result.toTupleRef().elements();
            state = elements[1].toTensorVector();
            coordinates = call("slow", {elements[0]}).toTensor();
        });
        return coordinates;
    }

    at::Tensor propose(const at::Tensor& from, const at::Tensor& noise) override {
        at::Tensor to;
        guarded("failed in propose", [&] { to = call("propose", {from, noise}).toTensor(); });
        return to;
    }

    double logDensity(const at::Tensor& to, const at::Tensor& from) override {
        double density = 0;
        guarded("failed in log_density",
                [&] { density = call("log_density", {to, from}).toTensor().to(at::kDouble).item<double>(); });
        return density;
    }

    bool has(const string& method) const override { return (bool) module.find_method(method); }

    string packState(const ModelState& state) const override {
        string bytes;
        guarded("has a state that cannot be saved", [&] {
            vector<char> packed = torch::jit::pickle_save(c10::IValue(c10::List<at::Tensor>(onHost(state))));
            bytes.assign(packed.begin(), packed.end());
        });
        return bytes;
    }

    ModelState unpackState(const string& bytes) const override {
        ModelState state;
        guarded("was given a damaged state", [&] {
            c10::IValue value = torch::jit::pickle_load(vector<char>(bytes.begin(), bytes.end()));
            for (auto& tensor : value.toTensorVector())
                state.push_back(tensor.to(place));
        });
        return state;
    }

private:
    c10::IValue call(const char* method, vector<c10::IValue> inputs) {
        // Plain interpretation: the profiling executor would run another code in the third call than in the first,
        // and a restarted trajectory would then not be the same bit for bit.
        torch::jit::GraphOptimizerEnabledGuard withoutOptimizer(false);
        c10::InferenceMode withoutGradients;
        return module.get_method(method)(std::move(inputs));
    }

    static ModelState onHost(const ModelState& state) {
        ModelState copies;
        for (auto& tensor : state)
            copies.push_back(tensor.cpu().clone());
        return copies;
    }

    template <class Body>
    void guarded(const char* what, Body body) const {
        try {
            body();
        } catch (const exception& error) {
            throw OpenMMException("bundle '" + name + "' " + what + ": " + firstLine(error));
        }
    }

    string name;
    at::Device place;
    torch::jit::Module module;
    at::Tensor periods, turns;  // (1, n_slow) of the slow coordinates and their inverses, 0 for those without a period
};

}  // namespace

unique_ptr<ModuleRunner> loadTorchScript(const LatentBundle& bundle, at::Device device) {
    return make_unique<TorchScriptRunner>(bundle, device);
}

}  // namespace OpenMMLatent
