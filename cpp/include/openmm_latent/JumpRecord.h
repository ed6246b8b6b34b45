// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_JUMP_RECORD_H_
#define OPENMM_LATENT_JUMP_RECORD_H_

#include <string>
#include <vector>

namespace OpenMMLatent {

/** What happened in one jump. Energies in kJ/mol, forces in kJ/mol/nm, times in seconds of wall clock. */
struct JumpRecord {
    long long number = 0;   /**< 1 for the first jump of the trajectory */
    int bundle = 0;         /**< index of the bundle that proposed it */
    long long step = 0;     /**< the Context's step count when it was tried */
    int mode = 1;           /**< LatentIntegrator::Mode */
    bool isSteered = false; /**< driven by a restraint, or else decoded */
    bool accepted = false;
    std::string reason; /**< why it was refused, the last candidate's if there were several; empty when accepted */
    int candidates = 1; /**< frames that were tried, one after the other, until one was accepted or none was left */
    double energyBefore = 0; /**< potential energy of the frame that was left */
    // Of the last candidate that was tried:
    double energyAfter = 0;  /**< potential energy after constraints and minimisation; NaN when never reached */
    double largestForce = 0; /**< largest force on one particle after minimisation */
    int minimizerIterations = 0;
    std::vector<double> start;   /**< slow coordinates of the frame that a driven jump left */
    std::vector<double> reached; /**< slow coordinates of the frame to which the drive led, accepted or not */
    std::vector<double> from;    /**< slow coordinates where a drive began: the drawn centre c0 in exact mode */
    std::vector<double> to;      /**< slow coordinates where it was to lead */
    int drivenSteps = 0;         /**< 0 where nothing was driven; the work is NaN then */
    int stepsPerPerturbation = 0;
    double sigma = 0;
    double work = 0;             /**< total work of the drive: change of the total energy less heat */
    double logProposalRatio = 0; /**< exact mode: ln q(from | to) - ln q(to | from) */
    double acceptance = 0;       /**< exact mode: probability with which the jump was to be accepted */
    double driveSeconds = 0;     /**< the drive */
    // Of a module call that several walkers made together, an equal share; of several candidates, the sum.
    double gatherSeconds = 0;   /**< reading model atoms into the module's input */
    double moduleSeconds = 0;   /**< the module's own forward; on CUDA the time to launch it */
    double scatterSeconds = 0;  /**< writing model atoms and riders back, constraints and virtual sites */
    double minimizeSeconds = 0; /**< minimisation and the guard's checks */
    double velocitySeconds = 0; /**< redrawing velocities */
};

}  // namespace OpenMMLatent

#endif
