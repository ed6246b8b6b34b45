// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "Minimizer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "openmm/System.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

const double FirstStep = 0.005, LargestStep = 0.05, SmallestStep = 1e-6;  // nm, of the particle that moves most

/** A frame with its energy and forces. */
struct Point {
    double energy;
    vector<Vec3> positions, forces;
};

void evaluate(ContextImpl& context, Point& point) {
    point.energy = context.calcForcesAndEnergy(true, true);
    context.getForces(point.forces);
    const System& system = context.getSystem();
    for (int i = 0; i < (int) point.forces.size(); i++)
        if (system.getParticleMass(i) == 0)
            point.forces[i] = Vec3();
}

double largestForce(const Point& point) {
    double largest = 0;
    for (auto& force : point.forces)
        largest = max(largest, force.dot(force));
    return sqrt(largest);
}

double meanForce(const Point& point) {
    double sum = 0;
    for (auto& force : point.forces)
        sum += force.dot(force);
    return sqrt(sum / (3 * point.forces.size()));
}

}  // namespace

MinimizerResult minimize(ContextImpl& context, int maxIterations, double tolerance, double constraintTolerance) {
    Point best, trial;
    context.getPositions(best.positions);
    evaluate(context, best);
    MinimizerResult result = {best.energy, largestForce(best), 0};
    if (!isfinite(best.energy) || !isfinite(result.largestForce)) {
        result.energy = numeric_limits<double>::quiet_NaN();
        return result;
    }
    double step = FirstStep;
    bool isAtBest = true;
    while (result.iterations < maxIterations && step > SmallestStep && meanForce(best) > tolerance) {
        trial.positions = best.positions;
        for (size_t i = 0; i < trial.positions.size(); i++)
            trial.positions[i] += best.forces[i] * (step / result.largestForce);
        context.setPositions(trial.positions);
        context.applyConstraints(constraintTolerance);
        context.computeVirtualSites();
        context.getPositions(trial.positions);
        evaluate(context, trial);
        result.iterations++;
        isAtBest = isfinite(trial.energy) && trial.energy < best.energy;
        if (isAtBest) {
            swap(best, trial);
            result.largestForce = largestForce(best);
            step = min(1.2 * step, LargestStep);
        } else
            step *= 0.2;
    }
    if (!isAtBest)
        context.setPositions(best.positions);
    result.energy = best.energy;
    return result;
}

}  // namespace OpenMMLatent
