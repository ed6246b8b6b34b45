// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_MODULE_RUNNER_H_
#define OPENMM_LATENT_MODULE_RUNNER_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "openmm_latent/Export.h"
#include "openmm_latent/LatentBundle.h"

namespace OpenMMLatent {

/** The memory of a model: tensors whose meaning only the model knows; empty for a Markov model. */
using ModelState = std::vector<at::Tensor>;

/**
 * Runs the contract's methods of one exported module, `jump` on any number of frames b at once and all others on one.
 * Everything that knows in which format a module was exported
 * stands behind this interface.
 */
class ModuleRunner {
public:
    virtual ~ModuleRunner() = default;
    /** Where inputs must live and outputs will. */
    virtual at::Device device() const = 0;
    /** `initial_state`: (1, n, 3) float32 [nm] -> state. */
    virtual ModelState initialState(const at::Tensor& positions) = 0;
    /** `jump`: (b, n, 3) float32 [nm], state, (b, n_noise) -> (b, n, 3); `state` is replaced by the next one. */
    virtual at::Tensor jump(const at::Tensor& positions, ModelState& state, const at::Tensor& noise) = 0;
    /** `slow(encode(x))`: (1, n, 3) float32 [nm] -> (1, n_slow) float32. */
    virtual at::Tensor slow(const at::Tensor& positions) = 0;
    /**
     * `slow(encode(x))` and the gradient in x of the sum over i of strengths_i / 2 d_i^2, where d = slow - target, the
     * short way round where a coordinate is an angle.
     *
     * @param positions  (1, n, 3) float32 [nm]
     * @param target, strengths  (1, n_slow) float32
     * @return (1, n_slow) float32 and (1, n, 3) float32
     */
    virtual std::pair<at::Tensor, at::Tensor> slowWithGradient(const at::Tensor& positions, const at::Tensor& target,
                                                               const at::Tensor& strengths) = 0;
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
 * Load a bundle's module.
 *
 * Methods that the bundle holds compiled ahead of time run compiled, where they were made for this torch, this kind of
 * processor and this device and `bundle.runner` does not ask for TorchScript; all others are TorchScript.
 *
 * @throws OpenMMException if the bundle is damaged or lacks the contract's methods, or if `bundle.runner` asks for
 *     compiled methods and there are none for this device
 */
OPENMM_LATENT_EXPORT std::unique_ptr<ModuleRunner> loadModule(const LatentBundle& bundle, at::Device device);
/** Load a bundle's TorchScript module alone. */
std::unique_ptr<ModuleRunner> loadTorchScript(const LatentBundle& bundle, at::Device device);

}  // namespace OpenMMLatent

#endif
