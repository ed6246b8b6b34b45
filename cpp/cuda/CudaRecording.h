// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_CUDA_RECORDING_H_
#define OPENMM_LATENT_CUDA_RECORDING_H_

#include <ATen/cuda/CUDAGraph.h>

#include <functional>

#include "torch/GraphedRunner.h"

namespace OpenMMLatent {

/** A CUDA graph of what torch does on its present stream, with memory of its own. torch's context must be current. */
class CudaRecording : public Recording {
public:
    void record(const std::function<void()>& body) override;
    void play() override { graph.replay(); }

private:
    at::cuda::CUDAGraph graph;
};

}  // namespace OpenMMLatent

#endif
