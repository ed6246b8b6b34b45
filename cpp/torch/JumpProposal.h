// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_JUMP_PROPOSAL_H_
#define OPENMM_LATENT_JUMP_PROPOSAL_H_

#include <memory>
#include <string>
#include <vector>

#include "ModuleRunner.h"
#include "WholeMolecules.h"
#include "openmm/Vec3.h"
#include "openmm_latent/Export.h"
#include "openmm_latent/JumpRecord.h"
#include "openmm_latent/LatentBundle.h"

namespace OpenMMLatent {

class JumpProposal;

/** What one walker brings to a module call. */
struct WalkerFrame {
    JumpProposal* proposal;  /**< the walker's own: gives the memory, and receives the candidates */
    at::Tensor positions;    /**< (n_atoms + n_riders, 3) float64 [nm] of the model atoms, then the riders, on the
                                  runner's device; left whole and centred */
    const OpenMM::Vec3* box; /**< periodic box vectors, or null for a system without */
    int seed;                /**< the noise comes from this, the jump's number and the candidate alone */
    long long number;
    int numCandidates;
};

/** One bundle at work: turns the positions of its model atoms into displacements, and keeps the model's memory. */
class OPENMM_LATENT_EXPORT JumpProposal {
public:
    /**
     * @param runner    the bundle's module, where it is to work
     * @param isFrozen  per particle of the System, whether it has no mass and must stay
     */
    JumpProposal(const LatentBundle& bundle, std::unique_ptr<ModuleRunner> runner, const std::vector<bool>& isFrozen);

    /**
     * Run the module once, on all candidates of all walkers, which keep theirs until the next call.
     *
     * Molecules are made whole and the model atoms centred in double precision; the module sees float32. What comes
     * back is the difference between the module's output and its input, so that an atom which the module leaves
     * alone does not move by as much as a rounding error.
     *
     * @return time of the module's own forward [s]
     * @throws OpenMMException naming the bundle, whatever torch threw
     */
    double draw(std::vector<WalkerFrame>& walkers);
    /** The frame from which the last candidates were drawn: WalkerFrame::positions, whole and centred. */
    const at::Tensor& places() const { return frame; }
    /** (n_atoms, 3) float64 [nm] from that frame to a candidate, zero for frozen atoms. */
    const at::Tensor& displacements(int candidate) const { return candidates[(size_t) candidate].displacements; }
    /** Whether every displacement of a candidate is finite and none leads farther than 100 nm away. */
    bool isUsable(int candidate) const { return candidates[(size_t) candidate].isUsable; }

    /** Where `propagate` leads in slow coordinates: (n_slow) float64, with the same noise and memory as a jump. */
    at::Tensor propagateSlow(at::Tensor& positions, const OpenMM::Vec3* box, int seed, long long number,
                             double& moduleSeconds);
    /**
     * Draw c0 ~ N(slow, sigma^2) and c1 ~ propose(c0); all that an exact jump needs to know of the model.
     *
     * @param record  receives from, to and logProposalRatio
     * @return as LatentJumpKernel::proposeExact
     */
    double proposeExact(const std::vector<double>& slow, double sigma, int seed, JumpRecord& record);

    void commitState(int candidate);
    void resetState();
    std::string getState() const;
    void setState(const std::string& bytes);

private:
    struct Candidate {
        at::Tensor displacements;
        bool isUsable;
        ModelState state;
    };
    double drawTogether(std::vector<WalkerFrame>& walkers);
    void keep(const std::vector<WalkerFrame>& walkers, at::Tensor& displacements, ModelState& states) const;
    at::Tensor prepareInput(at::Tensor& positions, const OpenMM::Vec3* box) const;
    ModelState presentState(const at::Tensor& input) const;
    at::Tensor makeNoise(int seed, long long number, int count, int numCandidates = 1) const;

    std::unique_ptr<ModuleRunner> runner;
    std::string name;
    int numNoise, numPropagateNoise, numProposeNoise;
    std::vector<double> slowPeriods;
    int64_t numAtoms;
    WholeMolecules wholeMolecules;
    at::Tensor mobility;  // (n_atoms, 1) float64, 0 for frozen atoms and 1 for others; undefined if none is frozen
    bool hasState;
    ModelState state;
    at::Tensor frame;
    std::vector<Candidate> candidates;
};

}  // namespace OpenMMLatent

#endif
