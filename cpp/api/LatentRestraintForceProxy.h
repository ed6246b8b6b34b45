// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_RESTRAINT_FORCE_PROXY_H_
#define OPENMM_LATENT_RESTRAINT_FORCE_PROXY_H_

#include "openmm/serialization/SerializationProxy.h"

namespace OpenMMLatent {

/** XmlSerializer's view of a LatentRestraintForce. */
class LatentRestraintForceProxy : public OpenMM::SerializationProxy {
public:
    LatentRestraintForceProxy() : SerializationProxy("LatentRestraintForce") {}
    void serialize(const void* object, OpenMM::SerializationNode& node) const override;
    void* deserialize(const OpenMM::SerializationNode& node) const override;
};

}  // namespace OpenMMLatent

#endif
