// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_JUMP_KERNEL_H_
#define OPENMM_LATENT_JUMP_KERNEL_H_

#include <string>
#include <vector>

#include "Export.h"
#include "JumpRecord.h"
#include "openmm/KernelImpl.h"
#include "openmm/System.h"
#include "openmm/internal/ContextImpl.h"

namespace OpenMMLatent {

class LatentIntegrator;
class LatentJumpKernel;

/** One walker's part in a module call. */
struct JumpRequest {
    LatentJumpKernel* kernel; /**< the walker's own */
    OpenMM::ContextImpl* context;
    int seed;
    int numCandidates;  /**< how many frames to draw */
    JumpRecord* record; /**< gives the jump's number and bundle; receives the gather and module times */
};

/**
 * What each platform provides for a jump: read the model atoms, run the module, move the particles; and a snapshot
 * that brings everything back bit for bit. Constraints, minimisation, acceptance and velocities are the integrator's.
 */
class OPENMM_LATENT_EXPORT LatentJumpKernel : public OpenMM::KernelImpl {
public:
    static std::string Name() { return "LatentJump"; }
    LatentJumpKernel(const std::string& name, const OpenMM::Platform& platform) : KernelImpl(name, platform) {}

    /** Load every bundle. Throws OpenMMException naming the bundle that cannot be loaded. */
    virtual void initialize(const OpenMM::System& system, const LatentIntegrator& integrator) = 0;

    /** Remember positions, velocities and box. */
    virtual void save(OpenMM::ContextImpl& context) = 0;
    /** Bring back, bit for bit, what the last save() remembered. */
    virtual void restore(OpenMM::ContextImpl& context) = 0;

    /**
     * Draw the candidates of one or several walkers by one application of a bundle's `jump`; nothing moves.
     *
     * The module's noise is a function of (seed, record.number, candidate) alone, the same on every platform and
     * whoever else takes part. Each walker's candidates stay with its own kernel until its next call.
     *
     * @param requests  the first one's is this kernel, whose module runs; all ask for the same bundle, and are on
     *                  platforms of one kind
     * @throws OpenMMException naming the bundle, or saying that the walkers are on several devices
     */
    virtual void propose(const std::vector<JumpRequest>& requests) = 0;
    /**
     * Move the particles from the frame that propose() saw to one of its candidates.
     *
     * @param record  gives the bundle; receives the scatter time
     * @return false, with no particle moved, if the module's output is not finite
     */
    virtual bool move(OpenMM::ContextImpl& context, int candidate, JumpRecord& record) = 0;
    /**
     * Set record.to to the slow coordinates to which one application of a bundle's `propagate` leads.
     *
     * @return false if they are not finite
     */
    virtual bool proposeSlow(OpenMM::ContextImpl& context, int seed, JumpRecord& record) = 0;
    /**
     * Find the structure to which one application of a bundle's `jump` leads, and move nothing.
     *
     * @param from,to  receive the model atoms' whole structures, (n_atoms) [nm], centred alike
     * @return false if it is not finite
     */
    virtual bool proposeStructure(OpenMM::ContextImpl& context, int seed, JumpRecord& record,
                                  std::vector<OpenMM::Vec3>& from, std::vector<OpenMM::Vec3>& to) = 0;
    /**
     * Draw the two centres of an exact jump and the probability of its kernel to lead back.
     *
     * @param slow    slow coordinates of the frame, (n_slow)
     * @param sigma   of the normal distribution from which the first centre, record.from, is drawn
     * @param record  receives from, to ~ propose(from) and logProposalRatio
     * @return a number uniform in (0, 1) for the Metropolis test; 2 if c0 fell more than half a period away, which the
     *         restraint's distribution does not have; negative if a centre or a density is not finite
     */
    virtual double proposeExact(const std::vector<double>& slow, double sigma, int seed, JumpRecord& record) = 0;

    /** Make the memory that came with a candidate of the last propose() the bundle's memory. */
    virtual void commitState(int bundle, int candidate) = 0;
    /** Forget the bundle's memory: the next propose() begins with `initial_state` of the frame it finds. */
    virtual void resetState(int bundle) = 0;
    /** The bundle's memory as bytes, exact; empty if it is to be made anew. */
    virtual std::string getState(int bundle) const = 0;
    virtual void setState(int bundle, const std::string& bytes) = 0;
};

}  // namespace OpenMMLatent

#endif
