// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
// Methods that `openmm-latent export --runner aoti` compiled: the only C++ file that calls torch::inductor.
#include <ATen/ATen.h>
#include <ATen/Version.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/version.h>

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "ModuleRunner.h"
#include "openmm/OpenMMException.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

const string Folder = "extra/compiled/";

/** What compiled methods must have been made for to run here; `openmm_latent/compiling.py` writes the same words. */
string thisPlace(at::Device device) {
    string place = "torch " + string(TORCH_VERSION).substr(0, string(TORCH_VERSION).find('+'));
    if (device.is_cuda())
        return place + " cuda";
    return place + " cpu " + at::get_cpu_capability();
}

/** A file with a name of its own, gone at the end of the scope. */
class TemporaryFile {
public:
    explicit TemporaryFile(const string& content) {
        path = (filesystem::temp_directory_path() / "openmm-latent-XXXXXX.pt2").string();
        int descriptor = mkstemps(path.data(), 4);
        if (descriptor < 0)
            throw OpenMMException("no temporary file can be made as " + path + "; set TMPDIR to a folder with space");
        close(descriptor);
        ofstream stream(path, ios::binary);
        stream.write(content.data(), (streamsize) content.size());
        stream.close();
        if (!stream)
            throw OpenMMException("the temporary file " + path + " cannot be written; is the disk full?");
    }
    ~TemporaryFile() { filesystem::remove(path); }
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;

    string path;
};

/** Runs what was compiled, and leaves all else to TorchScript. */
class CompiledRunner : public ModuleRunner {
public:
    CompiledRunner(const LatentBundle& bundle, at::Device device, const map<string, string>& packages)
            : name(bundle.name), scripted(loadTorchScript(bundle, device)) {
        for (auto& [method, package] : packages)
            guarded("cannot load its compiled " + method, [&, &method = method, &package = package] {
                TemporaryFile file(package);
                // One thread: these are small functions, called one after another.
                methods[method] = make_unique<torch::inductor::AOTIModelPackageLoader>(file.path, "model", true);
            });
    }

    at::Device device() const override { return scripted->device(); }

    ModelState initialState(const at::Tensor& positions) override { return scripted->initialState(positions); }

    at::Tensor jump(const at::Tensor& positions, ModelState& state, const at::Tensor& noise) override {
        // Compiled for one frame.
        return isCompiled("jump") && positions.size(0) == 1 ? runWithState("jump", positions, state, noise)
                                                            : scripted->jump(positions, state, noise);
    }

    at::Tensor slow(const at::Tensor& positions) override {
        return isCompiled("slow") ? run("slow", {positions})[0] : scripted->slow(positions);
    }

    pair<at::Tensor, at::Tensor> slowWithGradient(const at::Tensor& positions, const at::Tensor& target,
                                                  const at::Tensor& strengths) override {
        if (!isCompiled("slow_with_gradient"))
            return scripted->slowWithGradient(positions, target, strengths);
        vector<at::Tensor> results = run("slow_with_gradient", {positions, target, strengths});
        return {results[0], results[1]};
    }

    at::Tensor propagateSlow(const at::Tensor& positions, ModelState& state, const at::Tensor& noise) override {
        return isCompiled("propagate_slow") ? runWithState("propagate_slow", positions, state, noise)
                                            : scripted->propagateSlow(positions, state, noise);
    }

    at::Tensor propose(const at::Tensor& from, const at::Tensor& noise) override {
        return scripted->propose(from, noise);
    }
    double logDensity(const at::Tensor& to, const at::Tensor& from) override { return scripted->logDensity(to, from); }
    bool has(const string& method) const override { return scripted->has(method); }
    string packState(const ModelState& state) const override { return scripted->packState(state); }
    ModelState unpackState(const string& bytes) const override { return scripted->unpackState(bytes); }

private:
    bool isCompiled(const string& method) const { return methods.count(method) > 0; }

    vector<at::Tensor> run(const string& method, vector<at::Tensor> inputs) {
        for (auto& input : inputs)
            input = input.contiguous();  // compiled code trusts its strides
        vector<at::Tensor> results;
        guarded("failed in its compiled " + method, [&] { results = methods[method]->run(inputs); });
        return results;
    }

    /** Inputs are positions, noise and the state's tensors; outputs the result and the next state's. */
    at::Tensor runWithState(const string& method, const at::Tensor& positions, ModelState& state,
                            const at::Tensor& noise) {
        vector<at::Tensor> inputs = {positions, noise};
        inputs.insert(inputs.end(), state.begin(), state.end());
        vector<at::Tensor> results = run(method, inputs);
        state.assign(results.begin() + 1, results.end());
        return results[0];
    }

    template <class Body>
    void guarded(const string& what, Body body) const {
        try {
            body();
        } catch (const exception& error) {
            string text = error.what();
            throw OpenMMException("bundle '" + name + "' " + what + ": " + text.substr(0, text.find('\n')));
        }
    }

    string name;
    unique_ptr<ModuleRunner> scripted;
    map<string, unique_ptr<torch::inductor::AOTIModelPackageLoader>> methods;
};

/** The archive's compiled methods, by name; `madeFor` receives what they were made for. Empty without any. */
map<string, string> findPackages(const LatentBundle& bundle, string& madeFor) {
    map<string, string> packages;
    istringstream stream(bundle.archive);
    caffe2::serialize::PyTorchStreamReader reader(&stream);
    for (auto& record : reader.getAllRecords())
        if (record.rfind(Folder, 0) == 0) {
            auto [data, size] = reader.getRecord(record);
            string content(static_cast<const char*>(data.get()), size);
            string method = record.substr(Folder.size());
            if (method == "made_for")
                madeFor = content;
            else
                packages[method.substr(0, method.find('.'))] = content;
        }
    return packages;
}

}  // namespace

unique_ptr<ModuleRunner> loadModule(const LatentBundle& bundle, at::Device device) {
    if (bundle.runner == "torchscript")
        return loadTorchScript(bundle, device);
    string madeFor;
    map<string, string> packages;
    try {
        packages = findPackages(bundle, madeFor);
    } catch (const exception&) {
        return loadTorchScript(bundle, device);  // which says what is wrong with the archive
    }
    if (!packages.empty() && madeFor == thisPlace(device))
        return make_unique<CompiledRunner>(bundle, device, packages);
    if (bundle.runner == "aoti")
        throw OpenMMException("bundle '" + bundle.name + "' has " +
                              (packages.empty() ? "no compiled methods" : "methods compiled for " + madeFor) +
                              ", but runner 'aoti' needs them for " + thisPlace(device) +
                              "; compile it here with `openmm-latent export --runner aoti`, or take runner 'auto'");
    return loadTorchScript(bundle, device);
}

}  // namespace OpenMMLatent
