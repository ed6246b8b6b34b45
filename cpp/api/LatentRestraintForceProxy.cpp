// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "LatentRestraintForceProxy.h"

#include <memory>

#include "BundleSerialization.h"
#include "openmm/OpenMMException.h"
#include "openmm_latent/LatentRestraintForce.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

void LatentRestraintForceProxy::serialize(const void* object, SerializationNode& node) const {
    const LatentRestraintForce& force = *reinterpret_cast<const LatentRestraintForce*>(object);
    node.setIntProperty("version", 1);
    node.setStringProperty("name", force.getName());
    node.setIntProperty("forceGroup", force.getForceGroup());
    node.setDoubleProperty("k", force.getDefaultStiffness());
    writeNumbers(node, "Target", force.getDefaultTarget());
    writeNumbers(node, "Weights", force.getWeights());
    writeBundle(node.createChildNode("Bundle"), force.getBundle());
}

void* LatentRestraintForceProxy::deserialize(const SerializationNode& node) const {
    if (node.getIntProperty("version") != 1)
        throw OpenMMException("LatentRestraintForce: the XML was written by a newer openmm-latent; update to read it");
    auto force =
        make_unique<LatentRestraintForce>(readBundle(node.getChildNode("Bundle")), node.getStringProperty("name"));
    force->setForceGroup(node.getIntProperty("forceGroup"));
    force->setDefaultStiffness(node.getDoubleProperty("k"));
    force->setDefaultTarget(readNumbers(node.getChildNode("Target")));
    force->setWeights(readNumbers(node.getChildNode("Weights")));
    return force.release();
}

}  // namespace OpenMMLatent
