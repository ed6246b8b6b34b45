// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_RELAXATION_H_
#define OPENMM_LATENT_RELAXATION_H_

#include <vector>

#include "openmm/Integrator.h"
#include "openmm/System.h"
#include "openmm/internal/ContextImpl.h"

namespace OpenMMLatent {

/** Throw OpenMMException for an integrator that cannot relax after a jump: RPMD, Drude and compound ones. */
void checkRelaxation(const OpenMM::Integrator& relaxation);

/** R [kJ/mol/K]. */
const double GasConstant = 8.31446261815324e-3;

/** The temperature [K] that an integrator, or an AndersenThermostat in the System, keeps; -1 if there is none. */
double findTemperature(const OpenMM::Integrator& relaxation, OpenMM::ContextImpl& context);

/** The seed of an integrator that draws random numbers; 0, which lets OpenMM choose, for one that draws none. */
int findRandomNumberSeed(const OpenMM::Integrator& relaxation);

// CompoundIntegrator forwards neither of these to its child, and both are protected there.
bool relaxationKineticEnergyRequiresForce(const OpenMM::Integrator& relaxation);
std::vector<OpenMM::Vec3> relaxationVelocities(const OpenMM::Integrator& relaxation, const OpenMM::System& system,
                                               double temperature, int randomSeed);

}  // namespace OpenMMLatent

#endif
