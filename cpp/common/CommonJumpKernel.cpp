// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "CommonJumpKernel.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>

#include "jumpKernels.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

void CommonJumpKernel::initialize(const System& system, const LatentIntegrator& integrator) {
    loadProposals(system, integrator, device());
    ContextSelector selector(cc);
    savedPosq.initialize(cc, cc.getPosq().getSize(), cc.getPosq().getElementSize(), "latentSavedPosq");
    savedVelm.initialize(cc, cc.getVelm().getSize(), cc.getVelm().getElementSize(), "latentSavedVelm");
    if (cc.getUseMixedPrecision())
        savedCorrection.initialize(cc, cc.getPosqCorrection().getSize(), cc.getPosqCorrection().getElementSize(),
                                   "latentSavedCorrection");
    for (int i = 0; i < integrator.getNumBundles(); i++) {
        buffersOf.push_back(make_unique<DeviceBundle>());
        prepare(integrator.getBundle(i), *buffersOf.back());
    }
}

void CommonJumpKernel::prepare(const LatentBundle& bundle, DeviceBundle& buffers) {
    buffers.numModelAtoms = (int) bundle.particles.size();
    buffers.numRiders = (int) bundle.riders.size();
    vector<int> particles = bundle.particles;
    vector<mm_int4> riders(max(1, buffers.numRiders));
    for (int i = 0; i < buffers.numRiders; i++) {
        const Rider& rider = bundle.riders[i];
        riders[i] = mm_int4((int) particles.size(), rider.origin, rider.axis, rider.plane);
        particles.push_back(rider.particle);
    }
    buffers.gather.initialize(cc, particles, isPeriodic);
    vector<int> place(isFrozen.size(), -1);
    for (size_t i = 0; i < particles.size(); i++)
        if (!isFrozen[particles[i]])
            place[particles[i]] = (int) i;
    buffers.movablePlace.initialize<int>(cc, (int) place.size(), "latentMovablePlace");
    buffers.movablePlace.upload(place);
    buffers.riders.initialize<mm_int4>(cc, (int) riders.size(), "latentRiders");
    buffers.riders.upload(riders);
    buffers.displacements.initialize(cc, 3 * particles.size(), sizeOfPos(cc), "latentDisplacements");

    ComputeProgram program = cc.compileProgram(JumpKernelSource, kernelDefines(cc));
    buffers.ride = program->createKernel("carryRiders");
    buffers.ride->addArg(buffers.gather.gathered);
    buffers.ride->addArg(buffers.displacements);
    buffers.ride->addArg(buffers.riders);
    buffers.ride->addArg(buffers.numRiders);
    buffers.scatter = program->createKernel("scatterAtoms");
    buffers.scatter->addArg(cc.getPosq());
    buffers.scatter->addArg(cc.getUseMixedPrecision() ? cc.getPosqCorrection() : cc.getPosq());
    buffers.scatter->addArg(cc.getAtomIndexArray());
    buffers.scatter->addArg(buffers.movablePlace);
    buffers.scatter->addArg(buffers.displacements);
}

at::Tensor CommonJumpKernel::gather(ContextImpl&, int bundle) {
    DeviceBundle& buffers = *buffersOf[bundle];
    at::Tensor gathered = at::empty({buffers.gather.getNumGathered(), 3}, usesDoubles(cc) ? at::kDouble : at::kFloat);
    ContextSelector selector(cc);
    buffers.gather.execute(box);
    buffers.gather.gathered.download(gathered.data_ptr(), true);
    return gathered.to(at::kDouble);
}

bool CommonJumpKernel::move(ContextImpl&, int candidate, JumpRecord& record) {
    DeviceBundle& buffers = *buffersOf[record.bundle];
    const JumpProposal& proposal = *proposals[record.bundle];
    if (!proposal.isUsable(candidate))
        return false;
    auto start = chrono::steady_clock::now();
    deliver(proposal, candidate, buffers);
    ContextSelector selector(cc);
    if (buffers.numRiders > 0)
        buffers.ride->execute(buffers.numRiders);
    buffers.scatter->execute(cc.getNumAtoms());
    record.scatterSeconds += chrono::duration<double>(chrono::steady_clock::now() - start).count();
    return true;
}

void CommonJumpKernel::deliver(const JumpProposal& proposal, int candidate, DeviceBundle& buffers) {
    at::Tensor all = proposal.places().to(usesDoubles(cc) ? at::kDouble : at::kFloat, false, true);
    ContextSelector selector(cc);
    if (isPeriodic)
        buffers.gather.gathered.upload(all.data_ptr(), true);  // riders need molecules whole
    all.narrow(0, 0, buffers.numModelAtoms).copy_(proposal.displacements(candidate));
    buffers.displacements.upload(all.data_ptr(), true);
}

void CommonJumpKernel::save(ContextImpl&) {
    ContextSelector selector(cc);
    cc.getPosq().copyTo(savedPosq);
    cc.getVelm().copyTo(savedVelm);
    if (cc.getUseMixedPrecision())
        cc.getPosqCorrection().copyTo(savedCorrection);
    savedAtomIndex = cc.getAtomIndex();
    savedCellOffsets = cc.getPosCellOffsets();
    cc.getPeriodicBoxVectors(savedBox[0], savedBox[1], savedBox[2]);
}

void CommonJumpKernel::restore(ContextImpl& context) {
    ContextSelector selector(cc);
    context.setPeriodicBoxVectors(savedBox[0], savedBox[1], savedBox[2]);
    savedPosq.copyTo(cc.getPosq());
    savedVelm.copyTo(cc.getVelm());
    if (cc.getUseMixedPrecision())
        savedCorrection.copyTo(cc.getPosqCorrection());
    if (savedAtomIndex != cc.getAtomIndex())
        cc.setAtomIndex(savedAtomIndex);
    cc.setPosCellOffsets(savedCellOffsets);
}

}  // namespace OpenMMLatent
