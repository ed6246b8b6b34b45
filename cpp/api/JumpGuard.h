// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_JUMP_GUARD_H_
#define OPENMM_LATENT_JUMP_GUARD_H_

#include <map>
#include <string>
#include <vector>

#include "openmm/internal/ContextImpl.h"
#include "openmm_latent/JumpRecord.h"
#include "openmm_latent/LatentIntegrator.h"

namespace OpenMMLatent {

/** Which heavy atoms are at most three bonds apart: for each a sorted list, all of them in one array. */
class BondedPairs {
public:
    BondedPairs(const StructureTerms& terms, int numParticles);
    bool contains(int first, int second) const;

private:
    std::vector<size_t> begins;  // (n_particles + 1) in `others`
    std::vector<int> others;
};

/** Compares the frame after a jump with the one before it. */
class JumpGuard {
public:
    JumpGuard(const StructureTerms& terms, const std::map<std::string, double>& thresholds,
              OpenMM::ContextImpl& context);

    /** Remember the frame that a jump is about to leave. */
    void begin();
    /**
     * Say why a jump must be refused.
     *
     * @param record  holds the mode, the energies and the largest force; in exploratory mode only NaN counts
     * @return one of LatentIntegrator::getRefusalReasons(), or nothing if the jump may stand
     */
    std::string judge(const JumpRecord& record) const;

private:
    double threshold(const char* name) const { return thresholds.at(name); }
    /** Vector from j to i, to the nearest image in a periodic system. */
    OpenMM::Vec3 between(const std::vector<OpenMM::Vec3>& positions, int i, int j) const;
    double distance(const std::vector<OpenMM::Vec3>& positions, int i, int j) const;
    double handedness(const std::vector<OpenMM::Vec3>& positions, const std::vector<int>& atoms) const;
    double torsion(const std::vector<OpenMM::Vec3>& positions, const std::vector<int>& atoms) const;
    double constraintError(const std::vector<OpenMM::Vec3>& after) const;
    bool keepsChirality(const std::vector<OpenMM::Vec3>& after) const;
    bool keepsOmegas(const std::vector<OpenMM::Vec3>& after) const;
    bool keepsBonds(const std::vector<OpenMM::Vec3>& after) const;
    bool hasClash(const std::vector<OpenMM::Vec3>& after) const;

    const StructureTerms& terms;
    const std::map<std::string, double>& thresholds;
    OpenMM::ContextImpl& context;
    BondedPairs bonded;
    std::vector<OpenMM::Vec3> before;
    bool isPeriodic;
    OpenMM::Vec3 box[3];
};

}  // namespace OpenMMLatent

#endif
