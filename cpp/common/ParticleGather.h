// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_PARTICLE_GATHER_H_
#define OPENMM_LATENT_PARTICLE_GATHER_H_

#include <map>
#include <string>
#include <vector>

#include "openmm/Vec3.h"
#include "openmm/common/ComputeArray.h"
#include "openmm/common/ComputeContext.h"
#include "openmm/common/ComputeKernel.h"

namespace OpenMMLatent {

/** Copies some of the System's particles into one compact array on the device, whatever order the device has them in.
 */
class ParticleGather {
public:
    /**
     * Call it with the device's context current.
     *
     * @param particles  System indices, in the order in which they are gathered
     * @param unwraps    whether to undo OpenMM's wrapping into the periodic box
     */
    void initialize(OpenMM::ComputeContext& cc, const std::vector<int>& particles, bool unwraps);
    /** Fill `gathered`, with the device's context current; receives the periodic box vectors. */
    void execute(OpenMM::Vec3 box[3]);
    int getNumGathered() const { return numGathered; }

    OpenMM::ComputeArray place;     // per particle of the System, its row in `gathered`, or -1
    OpenMM::ComputeArray gathered;  // xyz of each, [nm], of type POS

private:
    OpenMM::ComputeContext* cc = nullptr;
    OpenMM::ComputeArray cellOffsets;
    OpenMM::ComputeKernel kernel;
    int numGathered = 0;
    bool unwraps = false;
};

/** Whether coordinates have double precision on the device, as in double and mixed precision. */
inline bool usesDoubles(OpenMM::ComputeContext& cc) { return cc.getUseDoublePrecision() || cc.getUseMixedPrecision(); }
inline int sizeOfPos(OpenMM::ComputeContext& cc) { return usesDoubles(cc) ? sizeof(double) : sizeof(float); }

/** What our device code is compiled with: NUM_ATOMS, POS (the type of coordinates) and HAS_CORRECTION. */
std::map<std::string, std::string> kernelDefines(OpenMM::ComputeContext& cc);

}  // namespace OpenMMLatent

#endif
