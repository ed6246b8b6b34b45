// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
// A jump of a small module is hundreds of kernels of a few microseconds, and launching them is most of its time. Where
// a device can record its work and do it again with one launch (CUDA graphs), jumps are played from such recordings.
#ifndef OPENMM_LATENT_GRAPHED_RUNNER_H_
#define OPENMM_LATENT_GRAPHED_RUNNER_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ModuleRunner.h"
#include "openmm_latent/Export.h"

namespace OpenMMLatent {

/** A device's work, to be done again on the memory that it was recorded with. */
class Recording {
public:
    virtual ~Recording() = default;
    /** Run `body`, whose work on the device is recorded instead of done; throws if that cannot be. */
    virtual void record(const std::function<void()>& body) = 0;
    virtual void play() = 0;
};

/**
 * Plays another runner's `jump` from recordings, and leaves all else to it.
 *
 * Each combination of input shapes has a recording of its own, made in its third jump: the first two let libraries take
 * the memory that they keep. Its first two results are compared with the module's own. A module that cannot be
 * recorded, because it waits for the device or takes values from it, or whose recording gives something else, runs as
 * it did before, for good, after one warning that says why.
 */
class OPENMM_LATENT_EXPORT GraphedRunner : public ModuleRunner {
public:
    GraphedRunner(std::string name, std::unique_ptr<ModuleRunner> runner,
                  std::function<std::unique_ptr<Recording>()> makeRecording);

    at::Tensor jump(const at::Tensor& positions, ModelState& state, const at::Tensor& noise) override;

    at::Device device() const override { return runner->device(); }
    ModelState initialState(const at::Tensor& positions) override { return runner->initialState(positions); }
    at::Tensor slow(const at::Tensor& positions) override { return runner->slow(positions); }
    std::pair<at::Tensor, at::Tensor> slowWithGradient(const at::Tensor& positions, const at::Tensor& target,
                                                       const at::Tensor& strengths) override {
        return runner->slowWithGradient(positions, target, strengths);
    }
    at::Tensor propagateSlow(const at::Tensor& positions, ModelState& state, const at::Tensor& noise) override {
        return runner->propagateSlow(positions, state, noise);
    }
    at::Tensor propose(const at::Tensor& from, const at::Tensor& noise) override {
        return runner->propose(from, noise);
    }
    double logDensity(const at::Tensor& to, const at::Tensor& from) override { return runner->logDensity(to, from); }
    bool has(const std::string& method) const override { return runner->has(method); }
    std::string packState(const ModelState& state) const override { return runner->packState(state); }
    ModelState unpackState(const std::string& bytes) const override { return runner->unpackState(bytes); }

private:
    struct RecordedJump {
        int numWarmUps = 0, numCompared = 0;
        std::vector<at::Tensor> inputs;   // positions, noise and the state's tensors: copied into before each play
        std::vector<at::Tensor> outputs;  // the positions and the next state's tensors: copied from after each play
        std::unique_ptr<Recording> recording;
    };
    /** Record a jump from copies of these inputs. */
    void record(RecordedJump& recorded, const std::vector<at::Tensor>& inputs);
    /** Copies of the outputs for these inputs. */
    std::vector<at::Tensor> play(RecordedJump& recorded, const std::vector<at::Tensor>& inputs);
    /** Run the module itself on inputs, which stay as they are. */
    std::vector<at::Tensor> runPlainly(const std::vector<at::Tensor>& inputs);
    void giveUp(const std::string& reason);

    std::string name;
    std::unique_ptr<ModuleRunner> runner;
    std::function<std::unique_ptr<Recording>()> makeRecording;
    bool isPlayable = true;
    std::map<std::vector<std::vector<int64_t>>, RecordedJump> jumps;  // by the shapes of their inputs
};

}  // namespace OpenMMLatent

#endif
