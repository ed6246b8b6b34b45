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

/** A frame with its forces. */
struct Point {
    Strain strain = {numeric_limits<double>::quiet_NaN(), numeric_limits<double>::quiet_NaN()};
    vector<Vec3> positions, forces;
};

void evaluate(ContextImpl& context, int groups, Point& point) {
    point.strain.energy = context.calcForcesAndEnergy(true, true, groups);
    context.getForces(point.forces);
    const System& system = context.getSystem();
    double largest = 0;
    for (int i = 0; i < (int) point.forces.size(); i++) {
        if (system.getParticleMass(i) == 0)
            point.forces[i] = Vec3();
        double square = point.forces[i].dot(point.forces[i]);
        largest = square > largest || !isfinite(square) ? square : largest;
    }
    point.strain.largestForce = sqrt(largest);
}

bool areFinite(const vector<Vec3>& positions) {
    return all_of(positions.begin(), positions.end(), [](const Vec3& p) { return isfinite(p.dot(p)); });
}

bool isFinite(const Strain& strain) { return isfinite(strain.energy) && isfinite(strain.largestForce); }

bool isWithin(const Strain& strain, const Strain& enough) {
    return strain.energy <= enough.energy && strain.largestForce <= enough.largestForce;
}

double meanForce(const Point& point) {
    double sum = 0;
    for (auto& force : point.forces)
        sum += force.dot(force);
    return sqrt(sum / (3 * point.forces.size()));
}

}  // namespace

Strain measureStrain(ContextImpl& context, int groups) {
    Point point;
    evaluate(context, groups, point);
    return point.strain;
}

MinimizerResult minimize(ContextImpl& context, const Strain& enough, int groups, int maxIterations, double tolerance,
                         double constraintTolerance) {
    Point best, trial;
    context.getPositions(best.positions);
    // Constraints that do not converge leave positions on which some platforms' forces throw.
    if (areFinite(best.positions))
        evaluate(context, groups, best);
    if (!isFinite(best.strain))
        return {{numeric_limits<double>::quiet_NaN(), numeric_limits<double>::quiet_NaN()}, 0};
    double step = FirstStep;
    bool isAtBest = true;
    int iterations = 0;
    while (iterations < maxIterations && step > SmallestStep && !isWithin(best.strain, enough) &&
           meanForce(best) > tolerance) {
        trial.positions = best.positions;
        for (size_t i = 0; i < trial.positions.size(); i++)
            trial.positions[i] += best.forces[i] * (step / best.strain.largestForce);
        context.setPositions(trial.positions);
        context.applyConstraints(constraintTolerance);
        context.computeVirtualSites();
        context.getPositions(trial.positions);
        iterations++;
        isAtBest = areFinite(trial.positions);
        if (isAtBest) {
            evaluate(context, groups, trial);
            isAtBest = isFinite(trial.strain) && trial.strain.energy < best.strain.energy;
        }
        if (isAtBest) {
            swap(best, trial);
            step = min(1.2 * step, LargestStep);
        } else
            step *= 0.2;
    }
    if (!isAtBest)
        context.setPositions(best.positions);
    return {best.strain, iterations};
}

}  // namespace OpenMMLatent
