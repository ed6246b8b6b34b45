// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_RESTRAINT_EVALUATOR_H_
#define OPENMM_LATENT_RESTRAINT_EVALUATOR_H_

#include <memory>
#include <string>
#include <vector>

#include "ModuleRunner.h"
#include "WholeMolecules.h"
#include "openmm/OpenMMException.h"
#include "openmm/Vec3.h"
#include "openmm_latent/Export.h"
#include "openmm_latent/LatentBundle.h"

namespace OpenMMLatent {

/**
 * A LatentRestraintForce's energy and forces, whatever the platform.
 *
 * Molecules are made whole and the model atoms centred in double precision; the module sees float32. From its float32
 * slow coordinates on, the energy is computed in double precision. Superposed structures need no module: their energy
 * and forces are closed expressions in double precision.
 */
class OPENMM_LATENT_EXPORT RestraintEvaluator {
public:
    /** @param weights  of the slow coordinates, (n_slow) */
    RestraintEvaluator(const LatentBundle& bundle, const std::vector<double>& weights, at::Device device);

    /**
     * @param positions  (n_atoms, 3) float64 [nm] on the device; left whole and centred
     * @param box        periodic box vectors, or null for a system without
     * @param stiffness  k
     * @param target     (n_slow); for superposed structures (1), the fraction of the way
     * @param forces     receives (n_atoms, 3) float64 [kJ/mol/nm] on the device unless it is null
     * @return energy [kJ/mol]
     * @throws OpenMMException naming the bundle, whatever torch threw, or if the energy is not finite
     */
    double evaluate(at::Tensor& positions, const OpenMM::Vec3* box, double stiffness, const std::vector<double>& target,
                    at::Tensor* forces);
    /** Slow coordinates, (n_slow); `positions` and `box` as above. */
    std::vector<double> slow(at::Tensor& positions, const OpenMM::Vec3* box);
    /** Set both ends of the way, (n_atoms) [nm] each, at any place and orientation. */
    void setPath(const std::vector<OpenMM::Vec3>& start, const std::vector<OpenMM::Vec3>& end);

private:
    void prepare(at::Tensor& positions, const OpenMM::Vec3* box) const;
    double pullSlow(const at::Tensor& positions, double stiffness, const std::vector<double>& target,
                    at::Tensor* forces);
    double pullStructure(const at::Tensor& positions, double stiffness, double progress, at::Tensor* forces) const;
    std::vector<double> onHost(const at::Tensor& slow) const;
    at::Tensor asRow(const std::vector<double>& numbers) const;
    OpenMM::OpenMMException notFinite() const;
    template <class Body>
    auto guarded(Body body) const;

    std::unique_ptr<ModuleRunner> runner;  // null for superposed structures
    std::string name;
    std::vector<double> periods, weights;
    at::Device device;
    WholeMolecules wholeMolecules;
    at::Tensor pathStart, pathChange;  // (n_atoms, 3) float64 [nm], centred
};

}  // namespace OpenMMLatent

#endif
