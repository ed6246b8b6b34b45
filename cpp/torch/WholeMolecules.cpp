// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "WholeMolecules.h"

#include <ATen/ATen.h>

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

WholeMolecules::WholeMolecules(const LatentBundle& bundle, const vector<Rider>& riders, at::Device device) {
    auto numAtoms = (int64_t) bundle.particles.size();
    parents = at::arange(numAtoms + (int64_t) riders.size(), at::kLong);
    auto* values = parents.data_ptr<int64_t>();
    for (size_t i = 0; i < bundle.wholeParent.size(); i++)
        if (bundle.wholeParent[i] >= 0)
            values[i] = bundle.wholeParent[i];
    for (size_t i = 0; i < riders.size(); i++)
        values[numAtoms + (int64_t) i] = riders[i].origin;
    parents = parents.to(device);
}

void WholeMolecules::mend(at::Tensor& positions, const Vec3* box) const {
    // Whole numbers of box vectors between each atom and its parent; in reduced form, so row by row from the last.
    at::Tensor delta = positions - positions.index_select(0, parents);
    at::Tensor shift = at::zeros_like(delta);
    for (int axis = 2; axis >= 0; axis--) {
        at::Tensor count = at::round(delta.select(1, axis) / box[axis][axis]).unsqueeze(1);  // (n_atoms, 1)
        at::Tensor vector = at::tensor({box[axis][0], box[axis][1], box[axis][2]}, positions.options()).unsqueeze(0);
        delta.sub_(count * vector);
        shift.sub_(count * vector);
    }
    // Sum the shifts along each chain of parents, doubling the stride: log2(longest chain) rounds.
    at::Tensor parent = parents;
    for (int64_t reach = 1; reach < positions.size(0); reach *= 2) {
        shift = shift + shift.index_select(0, parent);
        parent = parent.index_select(0, parent);
    }
    positions.add_(shift);
}

}  // namespace OpenMMLatent
