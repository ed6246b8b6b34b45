// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
// The only C++ file that calls torch::jit.
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
    TorchScriptRunner(const string& name, const string& archive, at::Device device) : name(name), place(device) {
        guarded("cannot be loaded, it is damaged or no TorchScript archive", [&] {
            istringstream stream(archive);
            module = torch::jit::load(stream, device);
            module.eval();
            // Not torch::jit::freeze, which insists on a method called forward.
            module = torch::jit::freeze_module(module, {"jump", "initial_state"});
        });
        for (const char* method : {"jump", "initial_state"})
            if (!module.find_method(method))
                throw OpenMMException("bundle '" + name + "' has no method '" + method +
                                      "'; export it with openmm_latent.export_bundle");
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
            throw OpenMMException("bundle '" + name + "': jump must return float32 (1, " +
                                  to_string(positions.size(1)) + ", 3), got another shape or type; export it again");
        return moved;
    }

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
};

}  // namespace

unique_ptr<ModuleRunner> loadTorchScript(const string& name, const string& archive, at::Device device) {
    return make_unique<TorchScriptRunner>(name, archive, device);
}

}  // namespace OpenMMLatent
