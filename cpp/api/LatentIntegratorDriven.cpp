// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
// Jumps that a restraint drives: steered ones, and those of the exact mode.
#include <chrono>
#include <cmath>

#include "Driver.h"
#include "JumpGuard.h"
#include "Relaxation.h"
#include "openmm/OpenMMException.h"
#include "openmm/Platform.h"
#include "openmm/internal/ContextImpl.h"
#include "openmm_latent/LatentIntegrator.h"
#include "openmm_latent/LatentJumpKernel.h"
#include "openmm_latent/internal/LatentRestraintForceImpl.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

/** Sets parameters of a restraint, and in the end puts them, time and step count back as they were. */
class DrivingScope {
public:
    DrivingScope(ContextImpl& context, LatentIntegrator& integrator, const vector<string>& parameters)
            : context(context), integrator(integrator), time(context.getTime()), steps(context.getStepCount()) {
        for (auto& name : parameters)
            before.emplace_back(name, context.getParameter(name));
        integrator.setCurrentIntegrator(1);
    }
    ~DrivingScope() {
        integrator.setCurrentIntegrator(0);
        for (auto& parameter : before)
            context.setParameter(parameter.first, parameter.second);
        context.setTime(time);
        context.setStepCount(steps);
    }

private:
    ContextImpl& context;
    LatentIntegrator& integrator;
    double time;
    long long steps;
    vector<pair<string, double>> before;
};

vector<string> parametersOf(const LatentRestraintForce& restraint) {
    vector<string> names = {restraint.getStiffnessParameter()};
    for (int i = 0; i < restraint.getNumSlow(); i++)
        names.push_back(restraint.getTargetParameter(i));
    if (restraint.getNumSlow() == 0)
        names.push_back(restraint.getProgressParameter());
    return names;
}

/** The way from a drive's begin to its end along each slow coordinate, the short way round where one is an angle. */
vector<double> wayOf(const JumpRecord& record, const vector<double>& periods) {
    vector<double> way;
    for (size_t i = 0; i < record.from.size(); i++) {
        double distance = record.to[i] - record.from[i];
        way.push_back(periods[i] > 0 ? distance - periods[i] * round(distance / periods[i]) : distance);
    }
    return way;
}

double lengthOf(const vector<double>& way) {
    double squared = 0;
    for (double one : way)
        squared += one * one;
    return sqrt(squared);
}

/** Whether the positions have gone to pieces: what an exception in mid-drive is most often about. */
bool hasBlownUp(ContextImpl& context) {
    const double farthest = 1e4;  // nm
    vector<Vec3> positions;
    context.getPositions(positions);
    for (auto& position : positions)
        if (!(position.dot(position) < farthest * farthest))  // a NaN fails the comparison, too
            return true;
    return false;
}

}  // namespace

void LatentIntegrator::findRestraints(ContextImpl& contextImpl) {
    const char* wanted = mode == Exact ? "mode 'exact'" : "realisation 'steer'";
    restraints.clear();
    for (auto& bundle : bundles) {
        LatentRestraintForceImpl* found = nullptr;
        for (ForceImpl* impl : contextImpl.getForceImpls()) {
            auto* restraint = dynamic_cast<LatentRestraintForceImpl*>(impl);
            if (found == nullptr && restraint != nullptr &&
                restraint->getOwner().getBundle().archive == bundle.archive &&
                restraint->getOwner().getBundle().particles == bundle.particles &&
                restraint->getOwner().pullsAllAlike())
                found = restraint;
        }
        if (found == nullptr)
            throw OpenMMException(string(wanted) + " needs the restraint of bundle '" + bundle.name +
                                  "' in the System; call model.addRestraint(system, topology) before the Simulation is "
                                  "created");
        if (mode == Exact && (bundle.numProposeNoise == 0 || bundle.slowPeriods.empty()))
            throw OpenMMException("mode 'exact' needs a model with propose and log_density on slow coordinates, which "
                                  "bundle '" +
                                  bundle.name + "' lacks; use guarded mode");
        restraints.push_back(found);
    }
    if (mode == Exact)
        requireExactness(contextImpl);
    // The driver evaluates the restraints apart from all other forces, so they must be alone in their force group.
    const System& system = contextImpl.getSystem();
    if (restraints.empty())
        return;
    int group = restraints[0]->getOwner().getForceGroup();
    for (int i = 0; i < system.getNumForces(); i++) {
        bool isRestraint = dynamic_cast<const LatentRestraintForce*>(&system.getForce(i)) != nullptr;
        if (!isRestraint && system.getForce(i).getForceGroup() == group)
            throw OpenMMException("force '" + system.getForce(i).getName() + "' shares force group " +
                                  to_string(group) +
                                  " with the latent restraint, which must have one of its own; give "
                                  "either another group");
    }
    for (auto* restraint : restraints)
        if (restraint->getOwner().getForceGroup() != group)
            throw OpenMMException("all latent restraints of a System must be in one force group, got groups " +
                                  to_string(group) + " and " + to_string(restraint->getOwner().getForceGroup()));
}

void LatentIntegrator::requireExactness(ContextImpl& contextImpl) {
    requireBoltzmann(getIntegrator(0));
    if (hasVariableStep(getIntegrator(0)) && driving.stepSize <= 0)
        throw OpenMMException("mode 'exact' needs a drivingStepSize, since the relaxation's step size depends on the "
                              "frame; give it to createIntegrator");
    Platform& platform = contextImpl.getPlatform();
    for (auto& property : platform.getPropertyNames())
        if (property == "Precision" && platform.getPropertyValue(contextImpl.getOwner(), property) == "single")
            throw OpenMMException("mode 'exact' needs Precision 'mixed' or 'double' on platform " + platform.getName() +
                                  ", got 'single': the work would drown in rounding");
}

void LatentIntegrator::addDriver(const ContextImpl& contextImpl) {
    if (restraints.empty() || driver != nullptr)
        return;
    auto made = createDriver(restraints[0]->getOwner().getForceGroup());
    // A platform has one generator of random numbers for all integrators of a Context, and so one seed.
    made->setRandomNumberSeed(findRandomNumberSeed(getIntegrator(0), contextImpl.getSystem()));
    driver = made.get();
    addIntegrator(made.release());
}

double LatentIntegrator::driveAlong(JumpRecord& record, bool isStructure) {
    const LatentRestraintForce& restraint = restraints[record.bundle]->getOwner();
    double kT = GasConstant * relaxationTemperature();
    int groups = getIntegrationForceGroups() | (int) (1u << restraint.getForceGroup());
    double stepSize = driving.stepSize > 0 ? driving.stepSize : getIntegrator(0).getStepSize();
    if (!(stepSize > 0))
        throw OpenMMException("a driven jump needs a step size, and the relaxation integrator has none yet; give "
                              "drivingStepSize");
    vector<double> way = wayOf(record, restraint.getBundle().slowPeriods);
    Driving whole = driving.over(lengthOf(way));
    auto setCentre = [&](double fraction) {
        for (int i = 0; i < restraint.getNumSlow(); i++)
            context->setParameter(restraint.getTargetParameter(i), record.from[i] + fraction * way[i]);
        if (isStructure)
            context->setParameter(restraint.getProgressParameter(), fraction);
    };
    record.drivenSteps = whole.numSteps;
    record.stepsPerPerturbation = driving.stepsPerPerturbation;
    record.sigma = driving.sigma;
    auto start = chrono::steady_clock::now();
    double work;
    // As the relaxation has them now: without the restraint, which the driver applies by itself.
    driver->setIntegrationForceGroups(getIntegrationForceGroups() & ~(int) (1u << restraint.getForceGroup()));
    driver->setConstraintTolerance(getConstraintTolerance());
    DrivingScope scope(*context, *this, parametersOf(restraint));
    try {
        driver->setStepSize(stepSize);
        context->setParameter(restraint.getStiffnessParameter(), kT / (driving.sigma * driving.sigma));
        work = drive(*context, *driver, whole, setCentre, groups, kT);
    } catch (const OpenMMException&) {
        if (!hasBlownUp(*context))
            throw;
        work = NAN;
    }
    record.driveSeconds = chrono::duration<double>(chrono::steady_clock::now() - start).count();
    return work;
}

bool LatentIntegrator::attemptExact(JumpRecord& record) {
    const LatentRestraintForce& restraint = restraints[record.bundle]->getOwner();
    if (context->getParameter(restraint.getStiffnessParameter()) != 0)
        throw OpenMMException("exact mode: parameter '" + restraint.getStiffnessParameter() +
                              "' must be 0 between jumps, or the frames would be those of the restrained system; use "
                              "another restraint for an umbrella");
    beginAt(context->calcForcesAndEnergy(false, true, getIntegrationForceGroups()), record);
    double own = findTemperature(getIntegrator(0), *context), used = relaxationTemperature();
    if (!(used > 0) || (own >= 0 && fabs(own - used) > 1e-6 * own))
        throw OpenMMException("exact mode needs the relaxation's own temperature, " + to_string(own) + " K, got " +
                              to_string(used) + " K; leave temperature out of createIntegrator");
    record.start = restraints[record.bundle]->getSlow(*context);
    double uniform = kernel.getAs<LatentJumpKernel>().proposeExact(record.start, driving.sigma, seed, record);
    if (uniform > 1) {
        record.work = NAN;
        record.reason = "metropolis";  // the first centre fell beyond half a period, where no restraint would hold it
        return false;
    }
    if (uniform >= 0 && lengthOf(wayOf(record, restraint.getBundle().slowPeriods)) < driving.leastDistance) {
        record.work = NAN;
        record.reason = "near";  // the way back is as near: no pair of places is driven one way alone
        return false;
    }
    drawVelocities(-record.number);
    record.work = uniform < 0 ? NAN : driveAlong(record, false);
    if (isnan(record.work)) {
        record.reason = "nan";
        return false;
    }
    record.reached = restraints[record.bundle]->getSlow(*context);
    record.acceptance = min(1.0, exp(record.logProposalRatio - record.work / (GasConstant * used)));
    if (uniform >= record.acceptance) {
        record.reason = "metropolis";
        return false;
    }
    record.energyAfter = context->calcForcesAndEnergy(false, true, getIntegrationForceGroups());
    return true;
}

bool LatentIntegrator::attemptSteered(JumpRecord& record) {
    LatentRestraintForceImpl& restraint = *restraints[record.bundle];
    bool isStructure = restraint.getOwner().getNumSlow() == 0;
    beginAt(context->calcForcesAndEnergy(false, true, getIntegrationForceGroups()), record);
    guard->begin();
    bool isProposed;
    if (isStructure) {
        vector<Vec3> from, to;
        isProposed = kernel.getAs<LatentJumpKernel>().proposeStructure(*context, seed, record, from, to);
        if (isProposed)
            restraint.setPath(from, to);
    } else {
        record.start = record.from = restraint.getSlow(*context);
        isProposed = kernel.getAs<LatentJumpKernel>().proposeSlow(*context, seed, record);
    }
    record.work = isProposed ? driveAlong(record, isStructure) : NAN;
    if (!isnan(record.work) && !isStructure)
        record.reached = restraint.getSlow(*context);
    if (!isnan(record.work))
        record.energyAfter = context->calcForcesAndEnergy(false, true, getIntegrationForceGroups());
    record.reason = guard->judge(record);
    return record.reason.empty();
}

}  // namespace OpenMMLatent
