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

/** Throw OpenMMException for an integrator whose frames are not those of the classical Boltzmann distribution. */
void requireBoltzmann(const OpenMM::Integrator& relaxation);

/** Whether an integrator chooses its step size by the frame. */
bool hasVariableStep(const OpenMM::Integrator& relaxation);

/**
 * The seed of an integrator that draws random numbers, or of the System's AndersenThermostat; 0, which lets OpenMM
 * choose, where nothing does.
 */
int findRandomNumberSeed(const OpenMM::Integrator& relaxation, const OpenMM::System& system);

// CompoundIntegrator forwards neither of these to its child, and both are protected there.
bool relaxationKineticEnergyRequiresForce(const OpenMM::Integrator& relaxation);
std::vector<OpenMM::Vec3> relaxationVelocities(const OpenMM::Integrator& relaxation, const OpenMM::System& system,
                                               double temperature, int randomSeed);

}  // namespace OpenMMLatent

#endif
