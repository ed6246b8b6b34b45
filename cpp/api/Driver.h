// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_DRIVER_H_
#define OPENMM_LATENT_DRIVER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "openmm/CustomIntegrator.h"
#include "openmm/internal/ContextImpl.h"
#include "openmm_latent/LatentIntegrator.h"

namespace OpenMMLatent {

/**
 * Build the integrator that drives a jump, a time-symmetric splitting whose exchange of heat is counted.
 *
 * A block is n small steps between two kicks by the restraint:
 *
 *     R [B A O A B]^n R
 *
 * R: half a block's kick by the restraint, v += n dt/2 f_R / m. B: half a step's kick by the other forces. A: half a
 * step's drift, constraints kept and velocities corrected for them. O: friction and noise at kT, which in the variable
 * `heat` leave what they did to the kinetic energy. The restraint, whose network costs more than all other forces of a
 * small molecule, is evaluated at a block's ends only.
 *
 * Where two blocks meet, the last kick of one and the first of the next act at the same place, with the centre moved
 * between them. The restraint being harmonic, they are one whole kick with the centre half way: one evaluation a block.
 *
 * A step of the integrator is a small one, less its last B, which the next step begins with: only between two steps
 * does OpenMM bring virtual sites to where their atoms are. A kick, where one is due, comes between the two B.
 *
 * A block is its own time reversal and preserves phase-space volume but for the O steps, which keep the Maxwell
 * distribution in detailed balance. So the ratio of the probabilities of a driven path and of its reversal is
 * exp((dH - heat)/kT), whatever the step size: Sivak, Chodera and Crooks, Phys. Rev. X 3, 011007 (2013).
 *
 * No `updateContextState`: barostats, thermostats and removers of centre-of-mass motion rest while it drives.
 *
 * @param restraintGroup  force group in which the restraint, and nothing else, is; the integrator's own force groups
 *                        must be all others
 */
std::unique_ptr<OpenMM::CustomIntegrator> createDriver(int restraintGroup);

/**
 * Drive the system along a path of the restraint's parameters.
 *
 * @param driver    a child of the Context's LatentIntegrator, made by createDriver() and current now
 * @param setCentre puts the restraint's centre at a fraction of the path, 0..1
 * @param kT        [kJ/mol]
 * @return total work [kJ/mol]: change of kinetic, potential and restraint energy less heat; NaN if the drive blew up
 */
double drive(OpenMM::ContextImpl& context, OpenMM::CustomIntegrator& driver, const Driving& driving,
             const std::function<void(double)>& setCentre, int groups, double kT);

}  // namespace OpenMMLatent

#endif
