// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_MODULE_RUNNER_H_
#define OPENMM_LATENT_MODULE_RUNNER_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
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
    /** A state as bytes and back, bit for bit. */
    virtual std::string packState(const ModelState& state) const = 0;
    virtual ModelState unpackState(const std::string& bytes) const = 0;
};

/**
 * Load a TorchScript archive.
 *
 * @param name     what error messages call the bundle
 * @param archive  the bytes of the bundle file
 * @throws OpenMMException if the bytes are no TorchScript archive or lack the contract's methods
 */
std::unique_ptr<ModuleRunner> loadTorchScript(const std::string& name, const std::string& archive, at::Device device);

}  // namespace OpenMMLatent

#endif
