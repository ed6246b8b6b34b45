// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "openmm_latent/LatentIntegrator.h"

#include <cmath>

#include "Bytes.h"
#include "JumpGuard.h"
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

const map<string, double> DefaultThresholds = {
    {"maxEnergyIncrease", 50.0},  {"maxForce", 5000.0},
    {"maxWork", 100.0},           {"maxConstraintError", 1e-3},
    {"maxBondChange", 0.25},      {"maxOmegaDeviation", M_PI / 3},
    {"minDistance", 0.2},         {"maxMinimizerIterations", 100},
    {"minimizerTolerance", 50.0},
};

void checkProposals(LatentIntegrator::Mode mode, LatentIntegrator::Realisation realisation, int numProposals) {
    if (numProposals < 1)
        throw OpenMMException("nProposals must be at least 1, got " + to_string(numProposals));
    if (numProposals > 1 && mode == LatentIntegrator::Exact)
        throw OpenMMException("nProposals must be 1 in mode 'exact', got " + to_string(numProposals) +
                              ": to take the first of several that is accepted would bias the ensemble");
    if (numProposals > 1 && realisation == LatentIntegrator::Steer)
        throw OpenMMException("nProposals must be 1 with realisation 'steer', got " + to_string(numProposals) +
                              ": each proposal would cost a whole drive; decode, or let jumps come more often");
}

LatentJumpKernel& as(Kernel& kernel) { return kernel.getAs<LatentJumpKernel>(); }

}  // namespace

LatentIntegrator::LatentIntegrator(Integrator* relaxation, int jumpInterval)
        : mode(Guarded), realisation(Decode), jumpInterval(1), seed(0), numProposals(1), numParticles(0),
          temperature(-1), redrawsVelocities(true), stepsSinceJump(0), numJumps(0), isJumping(false),
          hasLoadedCheckpoint(false), driver(nullptr) {
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
    bundleFingerprints += fingerprint(bundle.archive);
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
    checkProposals(value, realisation, numProposals);
    mode = value;
}

void LatentIntegrator::setRealisation(Realisation value) {
    if (owner != nullptr && value == Steer && driver == nullptr)
        throw OpenMMException("setRealisation: steering must be chosen before the Context is created");
    checkProposals(mode, value, numProposals);
    realisation = value;
}

void LatentIntegrator::setNumProposals(int value) {
    checkProposals(mode, realisation, value);
    numProposals = value;
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
    if (!(value.stepsPerDistance >= 0))
        throw OpenMMException("driven steps per distance must not be negative, got " +
                              to_string(value.stepsPerDistance));
    if (!(value.leastDistance >= 0))
        throw OpenMMException("least driven distance must not be negative, got " + to_string(value.leastDistance));
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
    return {"nan",  "energy", "force", "constraint", "chirality", "omega",
            "bond", "clash",  "work",  "metropolis", "near"};
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

}  // namespace OpenMMLatent
