// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
// One jump from step() to the new positions, and the same of several walkers that share a module call.
#include <chrono>
#include <cmath>
#include <limits>
#include <set>

#include "Bytes.h"
#include "JumpGuard.h"
#include "Minimizer.h"
#include "Relaxation.h"
#include "openmm/OpenMMException.h"
#include "openmm/Platform.h"
#include "openmm/internal/ContextImpl.h"
#include "openmm_latent/LatentIntegrator.h"
#include "openmm_latent/LatentJumpKernel.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

const size_t MaxRecords = 10000;

double secondsSince(chrono::steady_clock::time_point start) {
    return chrono::duration<double>(chrono::steady_clock::now() - start).count();
}

LatentJumpKernel& as(Kernel& kernel) { return kernel.getAs<LatentJumpKernel>(); }

}  // namespace

/** A jump under way. Meanwhile position changes are our own, and stateChanged() must not take them for the user's. */
struct LatentIntegrator::Jump {
    explicit Jump(LatentIntegrator& walker) : walker(walker) { walker.isJumping = true; }
    ~Jump() { walker.isJumping = false; }
    Jump(const Jump&) = delete;
    Jump& operator=(const Jump&) = delete;

    LatentIntegrator& walker;
    JumpRecord record;
    Strain before = {};   // of the frame that a decoded jump leaves
    bool isOpen = false;  // the frame is saved, and not yet left for good
};

void LatentIntegrator::step(int steps) {
    if (context == nullptr)
        throw OpenMMException("This Integrator is not bound to a context!");
    while (steps > 0) {
        if (getStepsUntilJump() == 0 && !bundles.empty())
            makeJumps({this}, true);
        int relaxation = bundles.empty() ? steps : min(steps, getStepsUntilJump());
        CompoundIntegrator::step(relaxation);
        stepsSinceJump += relaxation;
        steps -= relaxation;
    }
}

int LatentIntegrator::getStepsUntilJump() const { return (int) max(0ll, jumpInterval - stepsSinceJump); }

bool LatentIntegrator::jump() {
    if (context == nullptr)
        throw OpenMMException("This Integrator is not bound to a context!");
    if (bundles.empty())
        throw OpenMMException("jump: this LatentIntegrator has no bundle; add one before the Context is created");
    return makeJumps({this}, false)[0];
}

vector<bool> LatentIntegrator::jumpTogether(const vector<LatentIntegrator*>& walkers) {
    requireTogether(walkers);
    return walkers.empty() ? vector<bool>() : makeJumps(walkers, true);
}

void LatentIntegrator::requireTogether(const vector<LatentIntegrator*>& walkers) {
    set<const LatentIntegrator*> seen;
    for (size_t i = 0; i < walkers.size(); i++) {
        string who = "walker " + to_string(i);
        if (walkers[i] == nullptr)
            throw OpenMMException(who + " is none; give a LatentIntegrator");
        const LatentIntegrator& walker = *walkers[i];
        if (walker.context == nullptr)
            throw OpenMMException(who + " is not bound to a Context; make its Simulation first");
        if (walker.bundles.empty())
            throw OpenMMException(who + " has no bundle; make its integrator by createIntegrator");
        if (!seen.insert(&walker).second)
            throw OpenMMException(who + " is there twice; give each walker a Simulation and an integrator of its own");
        if (walker.drives())
            throw OpenMMException(who + " drives its jumps, and a drive cannot be shared; only decoded jumps, guarded "
                                        "or exploratory, can be made together");
        if (walker.bundleFingerprints != walkers[0]->bundleFingerprints)
            throw OpenMMException(who +
                                  " has another bundle than walker 0, or another number of them; make a group for "
                                  "each model");
        const string &own = walker.context->getPlatform().getName(),
                     &first = walkers[0]->context->getPlatform().getName();
        if (own != first)
            throw OpenMMException(who + " is on platform " + own + ", but walker 0 on " + first +
                                  "; make a group for each platform");
    }
}

vector<bool> LatentIntegrator::makeJumps(const vector<LatentIntegrator*>& walkers, bool startsInterval) {
    list<Jump> jumps;
    vector<bool> accepted;
    string who;  // at work, if there are several
    try {
        for (size_t i = 0; i < walkers.size(); i++) {
            who = "walker " + to_string(i) + ": ";
            walkers[i]->begin(jumps.emplace_back(*walkers[i]));
        }
        who = "";
        propose(jumps);
        for (auto& jump : jumps) {
            who = "walker " + to_string(accepted.size()) + ": ";
            jump.walker.finish(jump);
            accepted.push_back(jump.record.accepted);
            if (startsInterval)
                jump.walker.stepsSinceJump = 0;
        }
    } catch (const exception& error) {
        for (auto& jump : jumps)
            if (jump.isOpen)
                jump.walker.rollBack();
        if (walkers.size() == 1)
            throw;
        throw OpenMMException(who + error.what());
    }
    return accepted;
}

void LatentIntegrator::begin(Jump& jump) {
    JumpRecord& record = jump.record;
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
    jump.isOpen = true;
    if (drives())
        return;
    jump.before = measureStrain(*context, getIntegrationForceGroups());
    beginAt(jump.before.energy, record);
    guard->begin();
}

void LatentIntegrator::propose(list<Jump>& jumps) {
    for (int bundle = 0; bundle < jumps.front().walker.getNumBundles(); bundle++) {
        vector<JumpRequest> requests;
        for (auto& jump : jumps) {
            LatentIntegrator& walker = jump.walker;
            if (jump.record.bundle == bundle && !walker.drives())
                requests.push_back(
                    {&as(walker.kernel), walker.context, walker.seed, walker.numProposals, &jump.record});
        }
        if (!requests.empty())
            requests[0].kernel->propose(requests);
    }
}

void LatentIntegrator::finish(Jump& jump) {
    JumpRecord& record = jump.record;
    if (mode == Exact)
        record.accepted = attemptExact(record);
    else
        record.accepted = drives() ? attemptSteered(record) : attemptDecoded(jump);
    jump.isOpen = false;
    if (record.accepted && mode == Exact)
        as(kernel).resetState(record.bundle);  // proposals have no memory, and the frame is another
    else if (record.accepted)
        as(kernel).commitState(record.bundle, record.candidates - 1);
    else
        as(kernel).restore(*context);
    auto start = chrono::steady_clock::now();
    // In exact mode whatever a drive's outcome: velocities that depend on it would bias the ensemble. Where none was
    // made they stay, unless nothing else would ever change the energy.
    bool isLeft = record.reason == "near" && findTemperature(getIntegrator(0), *context) >= 0;
    if ((mode == Exact && !isLeft) || (record.accepted && redrawsVelocities))
        drawVelocities(record.number, mode == Exact);
    else if (record.accepted)
        context->applyVelocityConstraints(getConstraintTolerance());  // the constrained bonds point elsewhere now
    record.velocitySeconds += secondsSince(start);
    // Forces that the relaxation has cached belong to other positions now.
    CompoundIntegrator::stateChanged(State::Positions);
    count(record);
}

void LatentIntegrator::rollBack() {
    as(kernel).restore(*context);
    CompoundIntegrator::stateChanged(State::Positions);
}

bool LatentIntegrator::attemptDecoded(Jump& jump) {
    JumpRecord& record = jump.record;
    for (int candidate = 0; candidate < numProposals; candidate++) {
        if (candidate > 0)
            as(kernel).restore(*context);
        record.candidates = candidate + 1;
        record.reason = realise(candidate, jump);
        if (record.reason.empty())
            return true;
    }
    return false;
}

string LatentIntegrator::realise(int candidate, Jump& jump) {
    JumpRecord& record = jump.record;
    record.energyAfter = record.largestForce = numeric_limits<double>::quiet_NaN();
    record.minimizerIterations = 0;
    if (!as(kernel).move(*context, candidate, record))
        return "nan";
    auto start = chrono::steady_clock::now();
    context->applyConstraints(getConstraintTolerance());
    context->computeVirtualSites();
    record.scatterSeconds += secondsSince(start);
    start = chrono::steady_clock::now();
    MinimizerResult result =
        minimize(*context, jump.before, getIntegrationForceGroups(), (int) getThreshold("maxMinimizerIterations"),
                 getThreshold("minimizerTolerance"), getConstraintTolerance());
    record.energyAfter = result.strain.energy;
    record.largestForce = result.strain.largestForce;
    record.minimizerIterations = result.iterations;
    string reason = guard->judge(record);
    record.minimizeSeconds += secondsSince(start);
    return reason;
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

void LatentIntegrator::count(const JumpRecord& record) {
    numJumps = record.number;
    if (!record.accepted)
        refusals[record.reason]++;
    records.push_back(record);
    if (records.size() > MaxRecords)
        records.pop_front();
}

}  // namespace OpenMMLatent
