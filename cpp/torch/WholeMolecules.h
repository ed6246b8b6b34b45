// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_WHOLE_MOLECULES_H_
#define OPENMM_LATENT_WHOLE_MOLECULES_H_

#include <ATen/core/Tensor.h>

#include <vector>

#include "openmm/Vec3.h"
#include "openmm_latent/LatentBundle.h"

namespace OpenMMLatent {

/** Mends molecules that periodic images have torn apart. */
class WholeMolecules {
public:
    /**
     * @param bundle  its model atoms take the image nearest to their `wholeParent`
     * @param riders  follow the model atoms in the positions and take the image nearest to their origin
     */
    WholeMolecules(const LatentBundle& bundle, const std::vector<Rider>& riders, at::Device device);

    /**
     * @param positions  (n_atoms + n_riders, 3) float64 [nm], changed in place
     * @param box        periodic box vectors in reduced form
     */
    void mend(at::Tensor& positions, const OpenMM::Vec3* box) const;

private:
    at::Tensor parents;  // (n_atoms + n_riders,) int64, an atom without a parent is its own
};

}  // namespace OpenMMLatent

#endif
