// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_INTEGRATOR_H_
#define OPENMM_LATENT_INTEGRATOR_H_

#include <algorithm>
#include <deque>
#include <iosfwd>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "Export.h"
#include "JumpRecord.h"
#include "LatentBundle.h"
#include "openmm/CompoundIntegrator.h"
#include "openmm/CustomIntegrator.h"
#include "openmm/Kernel.h"

namespace OpenMMLatent {

class JumpGuard;
class LatentRestraintForceImpl;

/** How a restraint drives the system along its slow coordinates, in a steered or an exact jump. */
struct Driving {
    int numSteps = 500;           /**< MD steps of one drive; a whole number of blocks */
    int stepsPerPerturbation = 2; /**< MD steps of a block, between two moves of the restraint's centre */
    double sigma = 0.15;          /**< the restraint's width: k = kT / sigma^2 [slow coordinates' unit; else nm] */
    double stepSize = 0;          /**< [ps]; 0 means the relaxation integrator's own */
    double friction = 1.0;        /**< [1/ps] */
    double stepsPerDistance = 0;  /**< further MD steps for each unit of way along the slow coordinates */
    double leastDistance = 0;     /**< exact mode drives to no proposal that is nearer: such ways are left to MD */

    int numBlocks() const { return numSteps / stepsPerPerturbation; }
    /** The same for a drive over some distance; the way back is as long, so that it has its reverse. */
    Driving over(double distance) const {
        Driving longer = *this;
        longer.numSteps +=
            stepsPerPerturbation * (int) (std::min(stepsPerDistance * distance, 1e9) / stepsPerPerturbation);
        return longer;
    }
};

/** Groups of particles whose geometry the guard compares before and after a jump; System indices throughout. */
struct StructureTerms {
    std::vector<std::vector<int>> bonds;         /**< pairs */
    std::vector<std::vector<int>> chiralCentres; /**< centre and three of its neighbours */
    std::vector<std::vector<int>> omegas;        /**< the four atoms of each peptide bond's torsion */
    std::vector<int> heavyAtoms;                 /**< atoms among which clashes are looked for */
};

/**
 * Alternates short physical MD with learned latent jumps.
 *
 * The relaxation integrator given to the constructor does all MD; step(n) takes n of its steps. A jump comes before
 * relaxation step k * jumpInterval + 1 (k = 1, 2, ...), so whoever reports every jumpInterval steps sees the end of a
 * relaxation. Time and step count are those of the relaxation alone.
 *
 * One jump by decoding: read the model atoms, run the bundle's module, write the displacements back, carry riders,
 * apply constraints and virtual sites, minimise within bounds, let the guard judge, and redraw velocities; the module
 * may draw several candidates at once, of which the first that passes is taken. By steering:
 * a LatentRestraintForce drives the system to where the module leads. A refused jump leaves the Context as it was, bit
 * for bit. In exact mode a proposal on the slow coordinates is driven to, and stands or falls by a Metropolis test on
 * the work; velocities are drawn anew whatever its outcome. A proposal nearer than Driving::leastDistance is refused
 * before anything moves: whether it is so depends on the distance alone, which is that of the way back.
 */
class OPENMM_LATENT_EXPORT LatentIntegrator : public OpenMM::CompoundIntegrator {
public:
    enum Mode {
        Exploratory = 0, /**< accept every finite jump */
        Guarded = 1,     /**< accept what passes every check of the guard */
        Exact = 2        /**< accept by a Metropolis test on the work of the drive: frames are Boltzmann */
    };
    /** How a jump reaches the whole system. */
    enum Realisation {
        Decode = 0, /**< write decoded coordinates, carry the rest, minimise */
        Steer = 1   /**< drive the system there with MD under a restraint; always so in exact mode */
    };

    /**
     * @param relaxation    integrates the physical MD; ownership passes to this object
     * @param jumpInterval  relaxation steps between two jumps
     * @throws OpenMMException for an interval below 1, or an RPMD or Drude integrator
     */
    LatentIntegrator(OpenMM::Integrator* relaxation, int jumpInterval);
    ~LatentIntegrator();

    /** Add a bundle; several bundles take turns, jump by jump, in the order they were added. */
    int addBundle(const LatentBundle& bundle);
    int getNumBundles() const { return (int) bundles.size(); }
    const LatentBundle& getBundle(int index) const;

    int getJumpInterval() const { return jumpInterval; }
    void setJumpInterval(int steps);
    Mode getMode() const { return mode; }
    void setMode(Mode value);
    Realisation getRealisation() const { return realisation; }
    void setRealisation(Realisation value);
    const Driving& getDriving() const { return driving; }
    /** May be changed between jumps; exact mode stays exact if the change does not depend on the frames. */
    void setDriving(const Driving& value);
    /** One seed gives one trajectory: noise and velocities come from (seed, jump number) alone. */
    int getRandomNumberSeed() const { return seed; }
    void setRandomNumberSeed(int value) { seed = value; }
    /** Temperature of redrawn velocities [K]; negative (the default) means the relaxation integrator's own. */
    double getTemperature() const { return temperature; }
    void setTemperature(double kelvin) { temperature = kelvin; }
    /** Whether velocities are drawn anew after an accepted jump (the default) or kept. */
    bool getRedrawsVelocities() const { return redrawsVelocities; }
    void setRedrawsVelocities(bool value) { redrawsVelocities = value; }
    /**
     * Frames that one module call draws for a decoded jump (default 1). They are tried one after the other until one is
     * accepted; if none is, the jump is refused for the last one's reason. Driven jumps have one.
     */
    int getNumProposals() const { return numProposals; }
    void setNumProposals(int value);
    /** Number of particles that the System must have, or 0 for any. */
    int getNumParticles() const { return numParticles; }
    void setNumParticles(int value) { numParticles = value; }

    const StructureTerms& getStructureTerms() const { return structureTerms; }
    void setStructureTerms(const StructureTerms& terms) { structureTerms = terms; }
    /**
     * Thresholds of the guard and bounds of the minimisation, by name:
     *
     * maxEnergyIncrease    [kJ/mol] minimised energy over the energy of the frame that was left (default 50)
     * maxForce             [kJ/mol/nm] on one particle, after minimisation (default 5000)
     * maxWork              [kJ/mol] done by a steered jump, in place of the two above (default 100)
     * maxConstraintError   relative (default 1e-3)
     * maxBondChange        relative to the length before the jump (default 0.25)
     * maxOmegaDeviation    [rad] from the planar form, cis or trans, held before the jump (default pi/3)
     * minDistance          [nm] between heavy atoms more than three bonds apart (default 0.2)
     * maxMinimizerIterations    (default 100)
     * minimizerTolerance   [kJ/mol/nm] root mean square force at which minimisation ends (default 50)
     */
    double getThreshold(const std::string& name) const;
    void setThreshold(const std::string& name, double value);
    const std::map<std::string, double>& getThresholds() const { return thresholds; }
    static std::vector<std::string> getThresholdNames();

    long long getNumJumps() const { return numJumps; }
    long long getNumAccepted() const;
    /** Every reason for which a jump can be refused; a new one goes last, since checkpoints count them in order. */
    static std::vector<std::string> getRefusalReasons();
    long long getNumRefused(const std::string& reason) const;
    /** Records of the jumps after the one with this number; the last 10000 are kept. */
    std::vector<JumpRecord> getJumpRecords(long long afterNumber) const;

    void step(int steps) override;
    /** Make one jump now, whatever the phase; the phase stays. Returns whether it was accepted. */
    bool jump();
    /** MD steps until the next jump is due; 0 if step() would begin with one. */
    int getStepsUntilJump() const;
    /**
     * Make the jump with which step() would go on, now, in several walkers, by one module call for all of them.
     *
     * Everything else is each walker's own: noise, candidates, constraints, minimisation, guard, memory, velocities.
     * A module that throws leaves every walker as it was. If a walker throws by itself, those before it have jumped and
     * those from it on are as they were.
     *
     * @return for each, whether its jump was accepted
     * @throws OpenMMException as requireTogether() does
     */
    static std::vector<bool> jumpTogether(const std::vector<LatentIntegrator*>& walkers);
    /** Throw OpenMMException unless the walkers are in Contexts of one platform, decode, and have the same bundles. */
    static void requireTogether(const std::vector<LatentIntegrator*>& walkers);

protected:
    void initialize(OpenMM::ContextImpl& context) override;
    void cleanup() override;
    std::vector<std::string> getKernelNames() override;
    void stateChanged(OpenMM::State::DataType changed) override;
    bool kineticEnergyRequiresForce() const override;
    std::vector<OpenMM::Vec3> getVelocitiesForTemperature(const OpenMM::System& system, double temperature,
                                                          int randomSeed) const override;
    void createCheckpoint(std::ostream& stream) const override;
    void loadCheckpoint(std::istream& stream) override;
    void serializeParameters(OpenMM::SerializationNode& node) const override;
    void deserializeParameters(const OpenMM::SerializationNode& node) override;

private:
    struct Jump;
    static std::vector<bool> makeJumps(const std::vector<LatentIntegrator*>& walkers, bool startsInterval);
    void begin(Jump& jump);
    static void propose(std::list<Jump>& jumps);
    void finish(Jump& jump);
    void rollBack();
    bool attemptDecoded(Jump& jump);
    std::string realise(int candidate, Jump& jump);
    bool attemptSteered(JumpRecord& record);
    bool attemptExact(JumpRecord& record);
    double driveAlong(JumpRecord& record, bool isStructure);
    bool drives() const { return mode == Exact || realisation == Steer; }
    static void beginAt(double energy, JumpRecord& record);
    void addDriver(const OpenMM::ContextImpl& context);
    void findRestraints(OpenMM::ContextImpl& context);
    void requireExactness(OpenMM::ContextImpl& context);
    void drawVelocities(long long number, bool isForRelaxation = false);
    double relaxationTemperature() const;
    void count(const JumpRecord& record);
    void adopt(long long jumps, long long sinceJump, const std::map<std::string, long long>& refused,
               const std::vector<std::string>& states);

    std::vector<LatentBundle> bundles;
    std::string bundleFingerprints;  // of all archives: who has the same has the same bundles
    StructureTerms structureTerms;
    std::map<std::string, double> thresholds;
    Mode mode;
    Realisation realisation;
    Driving driving;
    int jumpInterval, seed, numProposals, numParticles;
    double temperature;
    bool redrawsVelocities;
    // The phase and the tally: saved with the Context.
    long long stepsSinceJump, numJumps;
    std::map<std::string, long long> refusals;
    std::deque<JumpRecord> records;
    bool isJumping, hasLoadedCheckpoint;
    OpenMM::Kernel kernel;
    std::unique_ptr<JumpGuard> guard;
    OpenMM::CustomIntegrator* driver;                   // the second child; null unless jumps are driven
    std::vector<LatentRestraintForceImpl*> restraints;  // one a bundle, if jumps are driven
};

/** Make XmlSerializer know LatentIntegrator; called once when the library is loaded. */
OPENMM_LATENT_EXPORT void registerLatentSerializationProxies();

}  // namespace OpenMMLatent

#endif
