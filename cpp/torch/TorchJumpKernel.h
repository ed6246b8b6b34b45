// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_TORCH_JUMP_KERNEL_H_
#define OPENMM_LATENT_TORCH_JUMP_KERNEL_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "JumpProposal.h"
#include "openmm_latent/LatentIntegrator.h"
#include "openmm_latent/LatentJumpKernel.h"

namespace OpenMMLatent {

/** What the platforms' kernels have in common: the bundles at work, and their memories. */
class OPENMM_LATENT_EXPORT TorchJumpKernel : public LatentJumpKernel {
public:
    using LatentJumpKernel::LatentJumpKernel;
    void propose(const std::vector<JumpRequest>& requests) override;
    bool proposeSlow(OpenMM::ContextImpl& context, int seed, JumpRecord& record) override;
    bool proposeStructure(OpenMM::ContextImpl& context, int seed, JumpRecord& record, std::vector<OpenMM::Vec3>& from,
                          std::vector<OpenMM::Vec3>& to) override;
    double proposeExact(const std::vector<double>& slow, double sigma, int seed, JumpRecord& record) override;
    void commitState(int bundle, int candidate) override { proposals[bundle]->commitState(candidate); }
    void resetState(int bundle) override { proposals[bundle]->resetState(); }
    std::string getState(int bundle) const override;
    void setState(int bundle, const std::string& bytes) override;

protected:
    void loadProposals(const OpenMM::System& system, const LatentIntegrator& integrator, at::Device device) {
        place = device;
        isPeriodic = system.usesPeriodicBoundaryConditions();
        for (int i = 0; i < integrator.getNumBundles(); i++)
            bundles.push_back(&integrator.getBundle(i));
        for (int i = 0; i < system.getNumParticles(); i++)
            isFrozen.push_back(system.getParticleMass(i) == 0 && !system.isVirtualSite(i));
        for (int i = 0; i < integrator.getNumBundles(); i++)
            proposals.push_back(std::make_unique<JumpProposal>(*bundles[i], makeRunner(*bundles[i], device), isFrozen));
    }
    /** The module of a bundle, where torch works. */
    virtual std::unique_ptr<ModuleRunner> makeRunner(const LatentBundle& bundle, at::Device device) {
        return loadModule(bundle, device);
    }
    /**
     * The model atoms, then the riders, of the present frame, (n_atoms + n_riders, 3) float64 [nm], where torch works;
     * sets `box`. Called within the first walker's runTorch().
     */
    virtual at::Tensor gather(OpenMM::ContextImpl& context, int bundle) = 0;
    /** Run `body` where torch works; a platform with a stream of its own for that overrides it. */
    virtual void runTorch(const std::function<void()>& body) const { body(); }

    std::vector<const LatentBundle*> bundles;
    OpenMM::Vec3 box[3];
    bool isPeriodic = false;
    std::vector<bool> isFrozen;  // per particle: no mass, so a jump leaves it
    std::vector<std::unique_ptr<JumpProposal>> proposals;

private:
    /** As gather(), from the positions on the host. */
    at::Tensor gatherOnHost(OpenMM::ContextImpl& context, const LatentBundle& bundle);
    at::Device place = at::kCPU;
};

}  // namespace OpenMMLatent

#endif
