// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_BUNDLE_SERIALIZATION_H_
#define OPENMM_LATENT_BUNDLE_SERIALIZATION_H_

#include <string>
#include <vector>

#include "openmm/serialization/SerializationNode.h"
#include "openmm_latent/LatentBundle.h"

namespace OpenMMLatent {

/** Indices as a child node, and back from it. */
void writeGroup(OpenMM::SerializationNode& node, const std::string& name, const std::vector<int>& group);
std::vector<int> readGroup(const OpenMM::SerializationNode& node);

/** Numbers as a child node, bit for bit, and back from it. */
void writeNumbers(OpenMM::SerializationNode& node, const std::string& name, const std::vector<double>& numbers);
std::vector<double> readNumbers(const OpenMM::SerializationNode& node);

/** A whole bundle, archive included, as a node's properties and children, and back from it. */
void writeBundle(OpenMM::SerializationNode& node, const LatentBundle& bundle);
LatentBundle readBundle(const OpenMM::SerializationNode& node);

}  // namespace OpenMMLatent

#endif
