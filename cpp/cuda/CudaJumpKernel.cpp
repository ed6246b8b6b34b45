// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "CudaJumpKernel.h"

#include <ATen/ATen.h>

#include <cstdlib>

#include "CudaRecording.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

CudaJumpKernel::~CudaJumpKernel() {
    PrimaryContext scope(torchStream.context(), nothrow);
    proposals.clear();  // the modules' weights live in the primary context
}

void CudaJumpKernel::initialize(const System& system, const LatentIntegrator& integrator) {
    PrimaryContext scope(torchStream.context());
    CommonJumpKernel::initialize(system, integrator);
    torchStream.open();
}

unique_ptr<ModuleRunner> CudaJumpKernel::makeRunner(const LatentBundle& bundle, at::Device device) {
    unique_ptr<ModuleRunner> runner = loadModule(bundle, device);
    const char* wish = getenv("OPENMM_LATENT_CUDA_GRAPHS");
    if (wish != nullptr && string(wish) == "0")
        return runner;
    return make_unique<GraphedRunner>(bundle.name, std::move(runner), [] { return make_unique<CudaRecording>(); });
}

void CudaJumpKernel::runTorch(const function<void()>& body) const {
    torchStream.run([&] {
        body();  // which waits for its results, so that those of other walkers need no events
        return true;
    });
}

at::Tensor CudaJumpKernel::gather(ContextImpl&, int bundle) {
    ParticleGather& source = buffersOf[bundle]->gather;
    {
        ContextSelector selector(cc);
        source.execute(box);
    }
    torchStream.follow();  // torch's stream is the first walker's, and this may be another
    return torchStream.view(source.gathered, source.getNumGathered()).to(at::kDouble, false, true);
}

void CudaJumpKernel::deliver(const JumpProposal& proposal, int candidate, DeviceBundle& buffers) {
    torchStream.run([&] {
        at::Tensor places = proposal.places(), displacements = proposal.displacements(candidate);
        if (isPeriodic)
            torchStream.copy(places, buffers.gather.gathered);  // riders need molecules whole
        torchStream.copy(displacements, buffers.displacements);
        return true;
    });
}

}  // namespace OpenMMLatent
