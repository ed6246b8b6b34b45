// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_DRIVING_SERIALIZATION_H_
#define OPENMM_LATENT_DRIVING_SERIALIZATION_H_

#include "openmm/serialization/SerializationNode.h"
#include "openmm_latent/LatentIntegrator.h"

namespace OpenMMLatent {

inline void writeDriving(OpenMM::SerializationNode& node, const Driving& driving) {
    node.setIntProperty("numSteps", driving.numSteps);
    node.setIntProperty("stepsPerPerturbation", driving.stepsPerPerturbation);
    node.setDoubleProperty("sigma", driving.sigma);
    node.setDoubleProperty("stepSize", driving.stepSize);
    node.setDoubleProperty("friction", driving.friction);
    node.setDoubleProperty("stepsPerDistance", driving.stepsPerDistance);
    node.setDoubleProperty("leastDistance", driving.leastDistance);
}

inline Driving readDriving(const OpenMM::SerializationNode& node) {
    return {node.getIntProperty("numSteps"),
            node.getIntProperty("stepsPerPerturbation"),
            node.getDoubleProperty("sigma"),
            node.getDoubleProperty("stepSize"),
            node.getDoubleProperty("friction"),
            node.getDoubleProperty("stepsPerDistance", 0),  // not in version 3 and before
            node.getDoubleProperty("leastDistance", 0)};    // not in version 4 and before
}

}  // namespace OpenMMLatent

#endif
