// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "Driver.h"

#include <cmath>

#include "openmm/Vec3.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

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

unique_ptr<CustomIntegrator> createDriver(int restraintGroup, int otherGroups) {
    auto driver = make_unique<CustomIntegrator>(0.001);
    string pull = "f" + to_string(restraintGroup);
    driver->setIntegrationForceGroups(otherGroups & ~(int) (1u << restraintGroup));  // what `f` means below
    driver->addGlobalVariable("kick", 0);  // time for which the restraint's force acts [ps]
    driver->addGlobalVariable("n", 0);     // small steps after it
    driver->addGlobalVariable("i", 0);
    driver->addGlobalVariable("keep", 1);   // share of the velocity that an O step keeps
    driver->addGlobalVariable("noise", 0);  // sqrt(kT (1 - keep^2))
    driver->addGlobalVariable("isFirst", 1);
    driver->addPerDofVariable("other", 0);  // forces of all other groups at x: one evaluation a small step
    driver->addPerDofVariable("unconstrained", 0);
    driver->addPerDofVariable("before", 0);
    driver->addPerDofVariable("heat", 0);

    driver->beginIfBlock("isFirst > 0");
    driver->addComputePerDof("other", "f");
    driver->addComputePerDof("heat", "0");
    driver->addComputeGlobal("isFirst", "0");
    driver->endBlock();

    driver->addComputePerDof("v", "v+kick*" + pull + "/m");
    driver->addConstrainVelocities();
    driver->addComputeGlobal("i", "0");
    driver->beginWhileBlock("i < n");
    driver->addComputePerDof("v", "v+0.5*dt*other/m");
    driver->addConstrainVelocities();
    addDrift(*driver);
    driver->addComputePerDof("before", "v");
    driver->addComputePerDof("v", "keep*v+noise*gaussian/sqrt(m)");
    driver->addConstrainVelocities();
    driver->addComputePerDof("heat", "heat+0.5*m*(v*v-before*before)");
    addDrift(*driver);
    driver->addComputePerDof("other", "f");
    driver->addComputePerDof("v", "v+0.5*dt*other/m");
    driver->addConstrainVelocities();
    driver->addComputeGlobal("i", "i+1");
    driver->endBlock();
    return driver;
}

double drive(ContextImpl& context, CustomIntegrator& driver, const Driving& driving,
             const function<void(double)>& setCentre, int groups, double kT) {
    double keep = exp(-driving.friction * driver.getStepSize());
    driver.setGlobalVariableByName("keep", keep);
    driver.setGlobalVariableByName("noise", sqrt(kT * (1 - keep * keep)));
    driver.setGlobalVariableByName("isFirst", 1);
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
        driver.setGlobalVariableByName("kick", isFirst || isLast ? 0.5 * blockTime : blockTime);
        driver.setGlobalVariableByName("n", isLast ? 0 : driving.stepsPerPerturbation);
        driver.step(1);
    }
    setCentre(1);
    double end = totalEnergy(context, groups);
    if (!isfinite(end))
        return NAN;
    vector<Vec3> heats;
    driver.getPerDofVariableByName("heat", heats);
    double heat = 0;
    for (auto& exchanged : heats)
        heat += exchanged[0] + exchanged[1] + exchanged[2];
    return end - start - heat;
}

}  // namespace OpenMMLatent
