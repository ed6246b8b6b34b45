// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_BUNDLE_H_
#define OPENMM_LATENT_BUNDLE_H_

#include <array>
#include <string>
#include <vector>

namespace OpenMMLatent {

/** A particle that the network does not see and that rides on the local frame of three model atoms. */
struct Rider {
    int particle; /**< index in the System */
    int origin;   /**< model atom (position in LatentBundle::particles) that carries it */
    int axis;     /**< model atom that sets the first axis, or -1: follow the origin's translation only */
    int plane;    /**< model atom that sets the second axis, or -1 as above */
};

/**
 * One exported model, bound to the particles of one System.
 *
 * `archive` holds the bytes of the bundle file, so that a serialised integrator needs no file beside it.
 */
struct LatentBundle {
    std::string name;             /**< what messages call it, usually the file's name */
    std::string archive;          /**< the bytes of a TorchScript archive */
    std::string runner = "auto";  /**< "auto": compiled methods where they fit, "torchscript": none, "aoti": needed */
    std::vector<int> particles;   /**< System indices of the model atoms, in manifest order */
    std::vector<int> wholeParent; /**< per model atom, the model atom whose nearest image it takes; -1 at a root */
    std::vector<Rider> riders;    /**< particles carried by local frames */
    int numNoise = 0;             /**< standard normal numbers that one jump takes */
    int numPropagateNoise = 0;    /**< those that `propagate` takes, the first of a jump's */
    int numProposeNoise = 0;      /**< those that `propose` takes; 0 for a model without it */
    std::vector<double> slowPeriods;     /**< one a slow coordinate, 0 where it is not an angle; empty without any */
    std::vector<double> proposalWeights; /**< of the proposal kernels; empty: as the bundle has them */
};

}  // namespace OpenMMLatent

#endif
