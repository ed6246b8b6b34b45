// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
// Device code shared by OpenCL, CUDA and HIP; compiled by ComputeContext when a Context is created.
#ifndef OPENMM_LATENT_RESTRAINT_KERNEL_SOURCE_H_
#define OPENMM_LATENT_RESTRAINT_KERNEL_SOURCE_H_

namespace OpenMMLatent {

inline const char* const RestraintKernelSource = R"(
// POS is double in mixed and double precision, float in single. Slot i of posq holds particle order[i].

DEVICE mm_ulong fixedPoint(POS force) {
    return (mm_ulong) (mm_long) (force*0x100000000);
}

/** Add the forces on gathered particles to OpenMM's buffer: x of all slots, then y, then z, in fixed point. */
KERNEL void addForces(GLOBAL mm_ulong* RESTRICT forceBuffers, GLOBAL const int* RESTRICT order,
        GLOBAL const int* RESTRICT place, GLOBAL const POS* RESTRICT forces) {
    for (int i = GLOBAL_ID; i < NUM_ATOMS; i += GLOBAL_SIZE) {
        int row = place[order[i]];
        if (row < 0)
            continue;
        ATOMIC_ADD(&forceBuffers[i], fixedPoint(forces[3*row]));
        ATOMIC_ADD(&forceBuffers[i+PADDED_NUM_ATOMS], fixedPoint(forces[3*row+1]));
        ATOMIC_ADD(&forceBuffers[i+2*PADDED_NUM_ATOMS], fixedPoint(forces[3*row+2]));
    }
}
)";

}  // namespace OpenMMLatent

#endif
