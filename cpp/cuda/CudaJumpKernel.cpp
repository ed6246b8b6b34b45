// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "CudaJumpKernel.h"

#include <ATen/ATen.h>

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

bool CudaJumpKernel::propose(DeviceBundle& buffers, const Vec3* box, int seed, JumpRecord& record) {
    return torchStream.run([&] {
        at::Tensor gathered = torchStream.view(buffers.gather.gathered, buffers.gather.getNumGathered());
        at::Tensor positions = gathered.to(at::kDouble, false, true);
        at::Tensor displacements =
            proposals[record.bundle]->displacements(positions, box, seed, record.number, record.moduleSeconds);
        bool isFinite = isUsable(displacements);
        if (isFinite) {
            if (box != nullptr)
                gathered.copy_(positions, true);  // riders need molecules whole
            torchStream.view(buffers.displacements, buffers.numModelAtoms).copy_(displacements, true);
        }
        return isFinite;
    });
}

}  // namespace OpenMMLatent
