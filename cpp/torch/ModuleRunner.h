// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_MODULE_RUNNER_H_
#define OPENMM_LATENT_MODULE_RUNNER_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace OpenMMLatent {

/** The memory of a model: tensors whose meaning only the model knows; empty for a Markov model. */
using ModelState = std::vector<at::Tensor>;

/**
 * Runs the contract's methods of one exported module. Everything that knows in which format a module was exported
 * stands behind this interface.
 */
class ModuleRunner {
public:
    virtual ~ModuleRunner() = default;
    /** Where inputs must live and outputs will. */
    virtual at::Device device() const = 0;
    /** `initial_state`: (1, n, 3) float32 [nm] -> state. */
    virtual ModelState initialState(const at::Tensor& positions) = 0;
    /** `jump`: (1, n, 3) float32 [nm], state, (1, n_noise) -> (1, n, 3); `state` is replaced by the next one. */
    virtual at::Tensor jump(const at::Tensor& positions, ModelState& state, const at::Tensor& noise) = 0;
    /** `slow(encode(x))`: (1, n, 3) float32 [nm] -> (1, n_slow) float32. */
    virtual at::Tensor slow(const at::Tensor& positions) = 0;
    /**
     * `slow(encode(x))` and, by autograd, the gradient of pull(slow) . slow with `pull` held constant: for a restraint
     * of energy E(slow), `pull` returns dE/dslow and the second result is dE/dx.
     *
     * @param positions  (1, n, 3) float32 [nm]
     * @param pull       (1, n_slow) float32 -> (1, n_slow) float32
     * @return (1, n_slow) float32 and (1, n, 3) float32
     */
    virtual std::pair<at::Tensor, at::Tensor>
    slowWithGradient(const at::Tensor& positions, const std::function<at::Tensor(const at::Tensor&)>& pull) = 0;
    /** `slow(propagate(encode(x)))`: where the learned dynamics leads; `state` is replaced by the next one. */
    virtual at::Tensor propagateSlow(const at::Tensor& positions, ModelState& state, const at::Tensor& noise) = 0;
    /** `propose`: (1, n_slow), (1, n_propose_noise) -> (1, n_slow). */
    virtual at::Tensor propose(const at::Tensor& from, const at::Tensor& noise) = 0;
    /** `log_density`: (1, n_slow), (1, n_slow) -> ln q(to | from). */
    virtual double logDensity(const at::Tensor& to, const at::Tensor& from) = 0;
    /** Whether the module has one of the contract's methods. */
    virtual bool has(const std::string& method) const = 0;
    /** A state as bytes and back, bit for bit. */
    virtual std::string packState(const ModelState& state) const = 0;
    virtual ModelState unpackState(const std::string& bytes) const = 0;
};

/**
 * Load a TorchScript archive.
 *
 * @param name     what error messages call the bundle
 * @param archive  the bytes of the bundle file
 * @param proposalWeights  replaces the module's `proposal_weights` unless it is empty
 * @throws OpenMMException if the bytes are no TorchScript archive or lack the contract's methods
 */
std::unique_ptr<ModuleRunner> loadTorchScript(const std::string& name, const std::string& archive, at::Device device,
                                              const std::vector<double>& proposalWeights = {});

}  // namespace OpenMMLatent

#endif
