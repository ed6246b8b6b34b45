// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
// Device code shared by OpenCL, CUDA and HIP; compiled by ComputeContext when a Context is created.
#ifndef OPENMM_LATENT_GATHER_KERNEL_H_
#define OPENMM_LATENT_GATHER_KERNEL_H_

namespace OpenMMLatent {

inline const char* const GatherKernelSource = R"(
// POS is double in mixed and double precision, float in single. Slot i of posq holds particle order[i].

/** Copy some particles, unwrapped where that is asked for, into one compact array. */
KERNEL void gatherParticles(GLOBAL const real4* RESTRICT posq, GLOBAL const real4* RESTRICT correction,
        GLOBAL const int* RESTRICT order, GLOBAL const int* RESTRICT place, GLOBAL const int4* RESTRICT cellOffsets,
        GLOBAL POS* RESTRICT gathered, real4 boxX, real4 boxY, real4 boxZ) {
    for (int i = GLOBAL_ID; i < NUM_ATOMS; i += GLOBAL_SIZE) {
        int slot = place[order[i]];
        if (slot < 0)
            continue;
        real4 p = posq[i];
        POS x = p.x, y = p.y, z = p.z;
#ifdef HAS_CORRECTION
        real4 c = correction[i];
        x += c.x; y += c.y; z += c.z;
#endif
#ifdef UNWRAPS
        int4 cell = cellOffsets[i];
        x -= cell.x*(POS) boxX.x + cell.y*(POS) boxY.x + cell.z*(POS) boxZ.x;
        y -= cell.y*(POS) boxY.y + cell.z*(POS) boxZ.y;
        z -= cell.z*(POS) boxZ.z;
#endif
        gathered[3*slot] = x;
        gathered[3*slot+1] = y;
        gathered[3*slot+2] = z;
    }
}
)";

}  // namespace OpenMMLatent

#endif
