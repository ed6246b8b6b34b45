// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "Driver.h"

#include <cmath>

#include "openmm/Vec3.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

/** Sums of larger energies than this [kJ/mol] are rounded by a share of kT, and a work would be their difference. */
const double LargestEnergy = 1e9;

/** A: drift by half a step; constraints move the positions, and the velocities follow them. */
void addDrift(CustomIntegrator& driver) {
    driver.addComputePerDof("x", "x+0.5*dt*v");
    driver.addComputePerDof("unconstrained", "x");
    driver.addConstrainPositions();
    driver.addComputePerDof("v", "v+(x-unconstrained)/(0.5*dt)");
    driver.addConstrainVelocities();
}

double totalEnergy(ContextImpl& context, int groups) {
    double potential = context.calcForcesAndEnergy(false, true, groups);
    return potential + context.calcKineticEnergy();
}

}  // namespace

unique_ptr<CustomIntegrator> createDriver(int restraintGroup) {
    auto driver = make_unique<CustomIntegrator>(0.001);
    string pull = "f" + to_string(restraintGroup);
    driver->addGlobalVariable("driver_kick", 0);     // time for which the restraint's force acts [ps]
    driver->addGlobalVariable("driver_moves", 0);    // 1: a small step follows; 0: the drive ends here
    driver->addGlobalVariable("driver_pending", 0);  // 1: a small step's last B is due; -1: a drive begins
    driver->addGlobalVariable("driver_keep", 1);     // share of the velocity that an O step keeps
    driver->addGlobalVariable("driver_noise", 0);    // sqrt(kT (1 - keep^2))
    driver->addPerDofVariable("other", 0);           // forces of all other groups at x: one evaluation a small step
    driver->addPerDofVariable("unconstrained", 0);
    driver->addPerDofVariable("before", 0);
    driver->addPerDofVariable("heat", 0);

    driver->beginIfBlock("driver_pending > 0");
    driver->addComputePerDof("other", "f");
    driver->addComputePerDof("v", "v+0.5*dt*other/m");
    driver->addConstrainVelocities();
    driver->addComputeGlobal("driver_pending", "0");
    driver->endBlock();
    driver->beginIfBlock("driver_pending < 0");
    driver->addComputePerDof("other", "f");
    driver->addComputePerDof("heat", "0");
    driver->addComputeGlobal("driver_pending", "0");
    driver->endBlock();

    driver->beginIfBlock("driver_kick > 0");
    driver->addComputePerDof("v", "v+driver_kick*" + pull + "/m");
    driver->addConstrainVelocities();
    driver->addComputeGlobal("driver_kick", "0");
    driver->endBlock();

    driver->beginIfBlock("driver_moves > 0");
    driver->addComputePerDof("v", "v+0.5*dt*other/m");
    driver->addConstrainVelocities();
    addDrift(*driver);
    driver->addComputePerDof("before", "v");
    driver->addComputePerDof("v", "driver_keep*v+driver_noise*gaussian/sqrt(m)");
    driver->addConstrainVelocities();
    driver->addComputePerDof("heat", "heat+0.5*m*(v*v-before*before)");
    addDrift(*driver);
    driver->addComputeGlobal("driver_pending", "1");
    driver->endBlock();
    return driver;
}

double drive(ContextImpl& context, CustomIntegrator& driver, const Driving& driving,
             const function<void(double)>& setCentre, int groups, double kT) {
    double keep = exp(-driving.friction * driver.getStepSize());
    driver.setGlobalVariableByName("driver_keep", keep);
    driver.setGlobalVariableByName("driver_noise", sqrt(kT * (1 - keep * keep)));
    driver.setGlobalVariableByName("driver_pending", -1);
    int blocks = driving.numBlocks();
    setCentre(0);
    double start = totalEnergy(context, groups);
    // Perturb, propagate, ..., perturb: one perturbation more than blocks, so that the reversed path is of the same
    // kind. Block i = 1..blocks has its centre at i / (blocks + 1).
    double blockTime = driving.stepsPerPerturbation * driver.getStepSize();
    for (int i = 0; i <= blocks; i++) {
        bool isFirst = i == 0, isLast = i == blocks;
        double centre = isFirst ? 1 : isLast ? blocks : i + 0.5;
        setCentre(centre / (blocks + 1));
        driver.setGlobalVariableByName("driver_kick", isFirst || isLast ? 0.5 * blockTime : blockTime);
        driver.setGlobalVariableByName("driver_moves", isLast ? 0 : 1);
        driver.step(isLast ? 1 : driving.stepsPerPerturbation);
    }
    setCentre(1);
    double end = totalEnergy(context, groups);
    vector<Vec3> heats;
    driver.getPerDofVariableByName("heat", heats);
    double heat = 0, total = fabs(start) + fabs(end);
    for (auto& exchanged : heats)
        for (int axis = 0; axis < 3; axis++) {
            heat += exchanged[axis];
            total += fabs(exchanged[axis]);
        }
    // The reversed path has the same sizes, so that leaving both out keeps detailed balance. A NaN fails the test, too.
    return total < LargestEnergy ? end - start - heat : NAN;
}

}  // namespace OpenMMLatent
