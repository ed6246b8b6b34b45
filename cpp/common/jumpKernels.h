// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
// Device code shared by OpenCL, CUDA and HIP; compiled by ComputeContext when a Context is created.
#ifndef OPENMM_LATENT_JUMP_KERNELS_H_
#define OPENMM_LATENT_JUMP_KERNELS_H_

namespace OpenMMLatent {

inline const char* const JumpKernelSource = R"(
// POS is double in mixed and double precision, float in single. Slot i of posq holds particle order[i].

/** An orthonormal frame on three points, as nine numbers; 0 if they are (nearly) on a line. */
DEVICE int localFrame(const POS* o, const POS* a, const POS* p, POS* frame) {
    POS ux = a[0]-o[0], uy = a[1]-o[1], uz = a[2]-o[2];
    POS vx = p[0]-o[0], vy = p[1]-o[1], vz = p[2]-o[2];
    POS wx = uy*vz-uz*vy, wy = uz*vx-ux*vz, wz = ux*vy-uy*vx;
    POS u2 = ux*ux+uy*uy+uz*uz;
    POS w1 = sqrt(wx*wx+wy*wy+wz*wz);
    if (u2 == 0 || w1 < (POS) 1e-4f*u2)
        return 0;
    POS su = 1/sqrt(u2), sw = 1/w1;
    frame[0] = ux*su; frame[1] = uy*su; frame[2] = uz*su;
    frame[6] = wx*sw; frame[7] = wy*sw; frame[8] = wz*sw;
    frame[3] = frame[7]*frame[2]-frame[8]*frame[1];
    frame[4] = frame[8]*frame[0]-frame[6]*frame[2];
    frame[5] = frame[6]*frame[1]-frame[7]*frame[0];
    return 1;
}

DEVICE void loadPoint(GLOBAL const POS* RESTRICT values, int slot, POS* point) {
    for (int k = 0; k < 3; k++)
        point[k] = values[3*slot+k];
}

/** Carry each rider along with the local frame of its three model atoms. */
KERNEL void carryRiders(GLOBAL const POS* RESTRICT gathered, GLOBAL POS* RESTRICT displacements,
        GLOBAL const int4* RESTRICT riders, int numRiders) {
    for (int i = GLOBAL_ID; i < numRiders; i += GLOBAL_SIZE) {
        int4 rider = riders[i];
        POS shift[3], moved[3], point[9], target[9], before[9], after[9];
        loadPoint(displacements, rider.y, shift);
        for (int k = 0; k < 3; k++)
            moved[k] = shift[k];
        if (rider.z >= 0) {
            int corner[3];
            corner[0] = rider.y; corner[1] = rider.z; corner[2] = rider.w;
            for (int c = 0; c < 3; c++)
                for (int k = 0; k < 3; k++) {
                    point[3*c+k] = gathered[3*corner[c]+k];
                    target[3*c+k] = point[3*c+k]+displacements[3*corner[c]+k];
                }
            if (localFrame(point, point+3, point+6, before) && localFrame(target, target+3, target+6, after)) {
                POS arm[3];
                for (int k = 0; k < 3; k++)
                    arm[k] = gathered[3*rider.x+k]-point[k];
                for (int k = 0; k < 3; k++)
                    moved[k] = shift[k]-arm[k];
                for (int c = 0; c < 3; c++) {
                    POS along = arm[0]*before[3*c]+arm[1]*before[3*c+1]+arm[2]*before[3*c+2];
                    for (int k = 0; k < 3; k++)
                        moved[k] += along*after[3*c+k];
                }
            }
        }
        for (int k = 0; k < 3; k++)
            displacements[3*rider.x+k] = moved[k];
    }
}

/** Add the displacements to the positions at their full precision. */
KERNEL void scatterAtoms(GLOBAL real4* RESTRICT posq, GLOBAL real4* RESTRICT correction,
        GLOBAL const int* RESTRICT order, GLOBAL const int* RESTRICT place,
        GLOBAL const POS* RESTRICT displacements) {
    for (int i = GLOBAL_ID; i < NUM_ATOMS; i += GLOBAL_SIZE) {
        int slot = place[order[i]];
        if (slot < 0)
            continue;
        real4 p = posq[i];
#ifdef HAS_CORRECTION
        real4 c = correction[i];
        POS x = (POS) p.x+(POS) c.x+displacements[3*slot];
        POS y = (POS) p.y+(POS) c.y+displacements[3*slot+1];
        POS z = (POS) p.z+(POS) c.z+displacements[3*slot+2];
        correction[i] = make_real4((real) (x-(real) x), (real) (y-(real) y), (real) (z-(real) z), 0);
        posq[i] = make_real4((real) x, (real) y, (real) z, p.w);
#else
        posq[i] = make_real4(p.x+displacements[3*slot], p.y+displacements[3*slot+1], p.z+displacements[3*slot+2], p.w);
#endif
    }
}
)";

}  // namespace OpenMMLatent

#endif
