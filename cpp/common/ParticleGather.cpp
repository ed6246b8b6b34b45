// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "ParticleGather.h"

#include <algorithm>

#include "gatherKernel.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

map<string, string> kernelDefines(ComputeContext& cc) {
    map<string, string> defines;
    defines["NUM_ATOMS"] = cc.intToString(cc.getNumAtoms());
    defines["POS"] = usesDoubles(cc) ? "double" : "float";
    if (cc.getUseMixedPrecision())
        defines["HAS_CORRECTION"] = "1";
    return defines;
}

void ParticleGather::initialize(ComputeContext& context, const vector<int>& particles, bool undoesWrapping) {
    cc = &context;
    unwraps = undoesWrapping;
    numGathered = (int) particles.size();
    vector<int> places((size_t) cc->getNumAtoms(), -1);
    for (int i = 0; i < numGathered; i++)
        places[particles[i]] = i;
    place.initialize<int>(*cc, places.size(), "latentPlace");
    place.upload(places);
    gathered.initialize(*cc, 3 * (size_t) numGathered, sizeOfPos(*cc), "latentGathered");
    cellOffsets.initialize<mm_int4>(*cc, unwraps ? cc->getPaddedNumAtoms() : 1, "latentCellOffsets");

    map<string, string> defines = kernelDefines(*cc);
    if (unwraps)
        defines["UNWRAPS"] = "1";
    kernel = cc->compileProgram(GatherKernelSource, defines)->createKernel("gatherParticles");
    kernel->addArg(cc->getPosq());
    kernel->addArg(cc->getUseMixedPrecision() ? cc->getPosqCorrection() : cc->getPosq());
    kernel->addArg(cc->getAtomIndexArray());
    kernel->addArg(place);
    kernel->addArg(cellOffsets);
    kernel->addArg(gathered);
    for (int axis = 0; axis < 3; axis++)
        kernel->addArg();
}

void ParticleGather::execute(Vec3 box[3]) {
    cc->getPeriodicBoxVectors(box[0], box[1], box[2]);
    if (unwraps) {
        vector<mm_int4> offsets(cc->getPosCellOffsets());
        offsets.resize(cellOffsets.getSize());
        cellOffsets.upload(offsets);
    }
    for (int axis = 0; axis < 3; axis++) {
        const Vec3& side = box[axis];
        if (cc->getUseDoublePrecision())
            kernel->setArg(6 + axis, mm_double4(side[0], side[1], side[2], 0));
        else
            kernel->setArg(6 + axis, mm_float4((float) side[0], (float) side[1], (float) side[2], 0));
    }
    kernel->execute(cc->getNumAtoms());
}

}  // namespace OpenMMLatent
