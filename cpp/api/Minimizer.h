// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_MINIMIZER_H_
#define OPENMM_LATENT_MINIMIZER_H_

#include "openmm/internal/ContextImpl.h"

namespace OpenMMLatent {

/** How strained a frame is. */
struct Strain {
    double energy;       /**< potential energy [kJ/mol] */
    double largestForce; /**< on one particle with mass [kJ/mol/nm], constraint forces not counted */
};

/** @param groups  the force groups that the relaxation integrates, as bits */
Strain measureStrain(OpenMM::ContextImpl& context, int groups);

struct MinimizerResult {
    Strain strain;  /**< NaN if the start was not finite */
    int iterations; /**< force evaluations after the first */
};

/**
 * Take the strain out of a decoded frame, in a bounded number of force evaluations and with constraints kept.
 *
 * It ends as soon as the frame is no more strained, in energy and in largest force, than `enough`, the strain of the
 * frame that was left. Going on to a minimum would take out the thermal part of the potential energy, too, and the
 * relaxation would begin with a molecule at half its temperature.
 *
 * Steepest descent with an adaptive step: displacements along the force, none longer than the step; constraints and
 * virtual sites after each; the step grows by a fifth while the energy falls and shrinks to a fifth when it rises.
 * OpenMM's LocalEnergyMinimizer is not used: it cannot be stopped at a given energy, bounds neither the restarts that
 * its constraint springs need nor the cost of a jump, and crashes on OpenCL devices that are CPUs (pocl).
 *
 * @param maxIterations  largest number of force evaluations after the first
 * @param tolerance      root mean square force [kJ/mol/nm] at which to end in any case
 */
MinimizerResult minimize(OpenMM::ContextImpl& context, const Strain& enough, int groups, int maxIterations,
                         double tolerance, double constraintTolerance);

}  // namespace OpenMMLatent

#endif
