// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_MINIMIZER_H_
#define OPENMM_LATENT_MINIMIZER_H_

#include "openmm/internal/ContextImpl.h"

namespace OpenMMLatent {

struct MinimizerResult {
    double energy;       /**< [kJ/mol], NaN if the start was not finite */
    double largestForce; /**< [kJ/mol/nm] on one particle with mass, constraint forces not counted */
    int iterations;      /**< force evaluations after the first */
};

/**
 * Take the strain out of a decoded frame, in a bounded number of force evaluations and with constraints kept.
 *
 * Steepest descent with an adaptive step: displacements along the force, none longer than the step; constraints and
 * virtual sites after each; the step grows by a fifth while the energy falls and shrinks to a fifth when it rises.
 * OpenMM's LocalEnergyMinimizer is not used, because it bounds neither the restarts that its constraint springs need
 * nor the cost of a jump, and because it crashes on OpenCL devices that are CPUs (pocl).
 *
 * @param maxIterations  largest number of force evaluations after the first
 * @param tolerance      root mean square force [kJ/mol/nm] at which to end
 */
MinimizerResult minimize(OpenMM::ContextImpl& context, int maxIterations, double tolerance, double constraintTolerance);

}  // namespace OpenMMLatent

#endif
