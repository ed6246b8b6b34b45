// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "openmm_latent/LatentIntegrator.h"

#include <chrono>
#include <cmath>
#include <limits>

#include "Bytes.h"
#include "JumpGuard.h"
#include "Minimizer.h"
#include "Relaxation.h"
#include "openmm/Context.h"
#include "openmm/OpenMMException.h"
#include "openmm/Platform.h"
#include "openmm/internal/ContextImpl.h"
#include "openmm_latent/LatentJumpKernel.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

const size_t MaxRecords = 10000;

const map<string, double> DefaultThresholds = {
    {"maxEnergyIncrease", 50.0},  {"maxForce", 5000.0},
    {"maxWork", 100.0},           {"maxConstraintError", 1e-3},
    {"maxBondChange", 0.25},      {"maxOmegaDeviation", M_PI / 3},
    {"minDistance", 0.2},         {"maxMinimizerIterations", 100},
    {"minimizerTolerance", 50.0},
};

double secondsSince(chrono::steady_clock::time_point start) {
    return chrono::duration<double>(chrono::steady_clock::now() - start).count();
}

LatentJumpKernel& as(Kernel& kernel) { return kernel.getAs<LatentJumpKernel>(); }

}  // namespace

/** Marks the time in which position changes are our own, so that stateChanged() does not take them for the user's. */
class LatentIntegrator::JumpScope {
public:
    explicit JumpScope(bool& flag) : flag(flag) { flag = true; }
    ~JumpScope() { flag = false; }

private:
    bool& flag;
};

LatentIntegrator::LatentIntegrator(Integrator* relaxation, int jumpInterval)
        : mode(Guarded), realisation(Decode), jumpInterval(1), seed(0), numParticles(0), temperature(-1),
          redrawsVelocities(true), stepsSinceJump(0), numJumps(0), isJumping(false), hasLoadedCheckpoint(false),
          driver(nullptr) {
    thresholds = DefaultThresholds;
    // addIntegrator takes ownership, so whatever can be refused is refused first.
    if (relaxation == nullptr)
        throw OpenMMException("LatentIntegrator: relaxation must be an OpenMM integrator, got none");
    checkRelaxation(*relaxation);
    setJumpInterval(jumpInterval);
    addIntegrator(relaxation);
}

LatentIntegrator::~LatentIntegrator() {
    // The kernel belongs to the platform: it goes while the Context, if there is one, still lives.
    kernel = Kernel();
}

int LatentIntegrator::addBundle(const LatentBundle& bundle) {
    if (owner != nullptr)
        throw OpenMMException("addBundle: bundle '" + bundle.name +
                              "' came after the Context was created; add every bundle before");
    bundles.push_back(bundle);
    return (int) bundles.size() - 1;
}

const LatentBundle& LatentIntegrator::getBundle(int index) const {
    if (index < 0 || index >= (int) bundles.size())
        throw OpenMMException("getBundle: index must be in [0, " + to_string(bundles.size()) + "), got " +
                              to_string(index));
    return bundles[index];
}

void LatentIntegrator::setJumpInterval(int steps) {
    if (steps < 1)
        throw OpenMMException("jumpInterval must be at least 1 relaxation step, got " + to_string(steps));
    jumpInterval = steps;
}

void LatentIntegrator::setMode(Mode value) {
    if (owner != nullptr && value == Exact && driver == nullptr)
        throw OpenMMException("setMode: exact mode must be chosen before the Context is created");
    mode = value;
}

void LatentIntegrator::setRealisation(Realisation value) {
    if (owner != nullptr && value == Steer && driver == nullptr)
        throw OpenMMException("setRealisation: steering must be chosen before the Context is created");
    realisation = value;
}

void LatentIntegrator::setDriving(const Driving& value) {
    if (value.stepsPerPerturbation < 1 || value.numSteps < value.stepsPerPerturbation)
        throw OpenMMException(
            "driven steps and steps per perturbation must be at least 1, and the former no fewer, got " +
            to_string(value.numSteps) + " and " + to_string(value.stepsPerPerturbation));
    if (!(value.sigma > 0))
        throw OpenMMException("sigma must be positive, got " + to_string(value.sigma));
    if (!(value.stepSize >= 0) || !(value.friction >= 0))
        throw OpenMMException("the driving step size [ps] and friction [1/ps] must not be negative, got " +
                              to_string(value.stepSize) + " and " + to_string(value.friction));
    driving = value;
    driving.numSteps = value.numBlocks() * value.stepsPerPerturbation;
}

double LatentIntegrator::getThreshold(const string& name) const {
    auto found = thresholds.find(name);
    if (found == thresholds.end()) {
        string known;
        for (auto& entry : thresholds)
            known += (known.empty() ? "" : ", ") + entry.first;
        throw OpenMMException("threshold '" + name + "' is unknown; choose one of " + known);
    }
    return found->second;
}

void LatentIntegrator::setThreshold(const string& name, double value) {
    getThreshold(name);
    if (!(value >= 0))
        throw OpenMMException("threshold '" + name + "' must be zero or positive, got " + to_string(value));
    thresholds[name] = value;
}

vector<string> LatentIntegrator::getThresholdNames() {
    vector<string> names;
    for (auto& entry : DefaultThresholds)
        names.push_back(entry.first);
    return names;
}

vector<string> LatentIntegrator::getRefusalReasons() {
    return {"nan", "energy", "force", "constraint", "chirality", "omega", "bond", "clash", "work", "metropolis"};
}

long long LatentIntegrator::getNumRefused(const string& reason) const {
    auto found = refusals.find(reason);
    return found == refusals.end() ? 0 : found->second;
}

long long LatentIntegrator::getNumAccepted() const {
    long long accepted = numJumps;
    for (auto& entry : refusals)
        accepted -= entry.second;
    return accepted;
}

vector<JumpRecord> LatentIntegrator::getJumpRecords(long long afterNumber) const {
    vector<JumpRecord> newer;
    for (auto& record : records)
        if (record.number > afterNumber)
            newer.push_back(record);
    return newer;
}

void LatentIntegrator::initialize(ContextImpl& contextImpl) {
    if (owner != nullptr && &contextImpl.getOwner() != owner)
        throw OpenMMException("This LatentIntegrator is already bound to a Context; create one integrator a Context");
    int particles = contextImpl.getSystem().getNumParticles();
    if (numParticles != 0 && particles != numParticles)
        throw OpenMMException("the System has " + to_string(particles) + " particles, but the topology given to " +
                              "createIntegrator has " + to_string(numParticles) +
                              " atoms; pass the topology from which the System was made");
    for (auto& bundle : bundles)
        for (int particle : bundle.particles)
            if (particle < 0 || particle >= particles)
                throw OpenMMException("bundle '" + bundle.name + "': model atom " + to_string(particle) +
                                      " is outside the System's " + to_string(particles) + " particles");
    if (drives()) {
        findRestraints(contextImpl);
        addDriver(contextImpl);
    }
    // What can fail comes first: an integrator that a bundle has kept from being bound can be bound later.
    Kernel loaded = contextImpl.getPlatform().createKernel(LatentJumpKernel::Name(), contextImpl);
    as(loaded).initialize(contextImpl.getSystem(), *this);
    CompoundIntegrator::initialize(contextImpl);
    kernel = loaded;
    context = &contextImpl;
    owner = &contextImpl.getOwner();
    guard = make_unique<JumpGuard>(structureTerms, thresholds, contextImpl);
}

void LatentIntegrator::cleanup() {
    guard.reset();
    restraints.clear();
    kernel = Kernel();
    CompoundIntegrator::cleanup();
}

vector<string> LatentIntegrator::getKernelNames() {
    vector<string> names = CompoundIntegrator::getKernelNames();
    names.push_back(LatentJumpKernel::Name());
    return names;
}

void LatentIntegrator::stateChanged(State::DataType changed) {
    CompoundIntegrator::stateChanged(changed);
    if (changed != State::Positions || isJumping || context == nullptr)
        return;
    // New positions from outside end a trajectory, and with it the model's memory. A State brings its memory after
    // that signal, in deserializeParameters; a checkpoint before it, so the one signal that follows is not the user's.
    if (!hasLoadedCheckpoint)
        for (int i = 0; i < getNumBundles(); i++)
            as(kernel).resetState(i);
    hasLoadedCheckpoint = false;
}

bool LatentIntegrator::kineticEnergyRequiresForce() const {
    return relaxationKineticEnergyRequiresForce(getIntegrator(0));
}

vector<Vec3> LatentIntegrator::getVelocitiesForTemperature(const System& system, double temperature,
                                                           int randomSeed) const {
    return relaxationVelocities(getIntegrator(0), system, temperature, randomSeed);
}

double LatentIntegrator::relaxationTemperature() const {
    double kelvin = temperature >= 0 ? temperature : findTemperature(getIntegrator(0), *context);
    if (kelvin < 0)
        throw OpenMMException("the relaxation integrator has no temperature of its own, so velocities cannot be "
                              "redrawn after a jump; give temperature to createIntegrator or keep velocities");
    return kelvin;
}

void LatentIntegrator::step(int steps) {
    if (context == nullptr)
        throw OpenMMException("This Integrator is not bound to a context!");
    while (steps > 0) {
        if (stepsSinceJump >= jumpInterval && !bundles.empty()) {
            jump();
            stepsSinceJump = 0;
        }
        int relaxation = bundles.empty() ? steps : (int) min<long long>(steps, jumpInterval - stepsSinceJump);
        CompoundIntegrator::step(relaxation);
        stepsSinceJump += relaxation;
        steps -= relaxation;
    }
}

bool LatentIntegrator::jump() {
    if (context == nullptr)
        throw OpenMMException("This Integrator is not bound to a context!");
    if (bundles.empty())
        throw OpenMMException("jump: this LatentIntegrator has no bundle; add one before the Context is created");
    JumpScope scope(isJumping);
    JumpRecord record;
    record.number = numJumps + 1;
    record.bundle = (int) (numJumps % getNumBundles());
    record.step = context->getStepCount();
    record.mode = mode;
    record.isSteered = drives();
    record.energyAfter = record.largestForce = numeric_limits<double>::quiet_NaN();
    // Whatever could stop the jump half way is asked before anything moves.
    if (redrawsVelocities || drives())
        relaxationTemperature();
    as(kernel).save(*context);
    try {
        record.accepted = attempt(record);
    } catch (...) {
        as(kernel).restore(*context);
        CompoundIntegrator::stateChanged(State::Positions);
        throw;
    }
    if (record.accepted && mode == Exact)
        as(kernel).resetState(record.bundle);  // proposals have no memory, and the frame is another
    else if (record.accepted)
        as(kernel).commitState(record.bundle);
    else
        as(kernel).restore(*context);
    auto start = chrono::steady_clock::now();
    // In exact mode whatever the outcome: velocities that depend on it would bias the ensemble.
    if (mode == Exact || (record.accepted && redrawsVelocities))
        drawVelocities(record.number, mode == Exact);
    else if (record.accepted)
        context->applyVelocityConstraints(getConstraintTolerance());  // the constrained bonds point elsewhere now
    record.velocitySeconds += secondsSince(start);
    // Forces that the relaxation has cached belong to other positions now.
    CompoundIntegrator::stateChanged(State::Positions);
    count(record);
    return record.accepted;
}

bool LatentIntegrator::attempt(JumpRecord& record) {
    if (mode == Exact)
        return attemptExact(record);
    return realisation == Steer ? attemptSteered(record) : attemptDecoded(record);
}

void LatentIntegrator::beginAt(double energy, JumpRecord& record) {
    if (!isfinite(energy))
        throw OpenMMException("jump " + to_string(record.number) + ": the energy before the jump is not finite; " +
                              "the positions were broken before it (minimise first, or shorten the time step)");
    record.energyBefore = energy;
}

void LatentIntegrator::drawVelocities(long long number, bool isForRelaxation) {
    // Not Context::setVelocitiesToTemperature, which shifts leapfrog velocities with the forces of all groups, those
    // that the relaxation leaves out included.
    context->setVelocities(
        getVelocitiesForTemperature(context->getSystem(), relaxationTemperature(), mixedSeed(seed, number)));
    context->applyVelocityConstraints(getConstraintTolerance());
    // A relaxation that keeps its velocities half a step before its positions (LangevinMiddle, Verlet) must get them
    // so: as drawn, they would be half a kick too far, and stiff modes would be some percent off after every attempt.
    double offset = getVelocityTimeOffset();
    if (!isForRelaxation || offset == 0)
        return;
    vector<Vec3> shifted;
    context->calcForcesAndEnergy(true, false, getIntegrationForceGroups());
    context->computeShiftedVelocities(-offset, shifted);
    context->setVelocities(shifted);
    context->applyVelocityConstraints(getConstraintTolerance());
}

bool LatentIntegrator::attemptDecoded(JumpRecord& record) {
    Strain before = measureStrain(*context, getIntegrationForceGroups());
    beginAt(before.energy, record);
    guard->begin();
    if (!as(kernel).move(*context, seed, record)) {
        record.reason = "nan";
        return false;
    }
    auto start = chrono::steady_clock::now();
    context->applyConstraints(getConstraintTolerance());
    context->computeVirtualSites();
    record.scatterSeconds += secondsSince(start);
    start = chrono::steady_clock::now();
    MinimizerResult result =
        minimize(*context, before, getIntegrationForceGroups(), (int) getThreshold("maxMinimizerIterations"),
                 getThreshold("minimizerTolerance"), getConstraintTolerance());
    record.energyAfter = result.strain.energy;
    record.largestForce = result.strain.largestForce;
    record.minimizerIterations = result.iterations;
    record.reason = guard->judge(record);
    record.minimizeSeconds = secondsSince(start);
    return record.reason.empty();
}

void LatentIntegrator::count(const JumpRecord& record) {
    numJumps = record.number;
    if (!record.accepted)
        refusals[record.reason]++;
    records.push_back(record);
    if (records.size() > MaxRecords)
        records.pop_front();
}

}  // namespace OpenMMLatent
