// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "BundleSerialization.h"

#include "Bytes.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

void writeGroup(SerializationNode& node, const string& name, const vector<int>& group) {
    SerializationNode& child = node.createChildNode(name);
    for (int index : group)
        child.createChildNode("i").setIntProperty("v", index);
}

vector<int> readGroup(const SerializationNode& node) {
    vector<int> group;
    for (auto& child : node.getChildren())
        group.push_back(child.getIntProperty("v"));
    return group;
}

void writeNumbers(SerializationNode& node, const string& name, const vector<double>& numbers) {
    SerializationNode& child = node.createChildNode(name);
    for (double number : numbers)
        child.createChildNode("x").setDoubleProperty("v", number);
}

vector<double> readNumbers(const SerializationNode& node) {
    vector<double> numbers;
    for (auto& child : node.getChildren())
        numbers.push_back(child.getDoubleProperty("v"));
    return numbers;
}

void writeBundle(SerializationNode& node, const LatentBundle& bundle) {
    node.setStringProperty("name", bundle.name);
    node.setStringProperty("archive", toHex(bundle.archive));
    node.setStringProperty("runner", bundle.runner);
    node.setIntProperty("numNoise", bundle.numNoise);
    node.setIntProperty("numPropagateNoise", bundle.numPropagateNoise);
    node.setIntProperty("numProposeNoise", bundle.numProposeNoise);
    writeGroup(node, "Particles", bundle.particles);
    writeGroup(node, "WholeParent", bundle.wholeParent);
    SerializationNode& riders = node.createChildNode("Riders");
    for (auto& rider : bundle.riders)
        riders.createChildNode("Rider")
            .setIntProperty("particle", rider.particle)
            .setIntProperty("origin", rider.origin)
            .setIntProperty("axis", rider.axis)
            .setIntProperty("plane", rider.plane);
    writeNumbers(node, "SlowPeriods", bundle.slowPeriods);
    writeNumbers(node, "ProposalWeights", bundle.proposalWeights);
}

LatentBundle readBundle(const SerializationNode& node) {
    LatentBundle bundle;
    bundle.name = node.getStringProperty("name");
    bundle.archive = fromHex(node.getStringProperty("archive"));
    bundle.runner = node.getStringProperty("runner", "auto");
    bundle.numNoise = node.getIntProperty("numNoise");
    bundle.numPropagateNoise = node.getIntProperty("numPropagateNoise");
    bundle.numProposeNoise = node.getIntProperty("numProposeNoise");
    bundle.particles = readGroup(node.getChildNode("Particles"));
    bundle.wholeParent = readGroup(node.getChildNode("WholeParent"));
    for (auto& rider : node.getChildNode("Riders").getChildren())
        bundle.riders.push_back({rider.getIntProperty("particle"), rider.getIntProperty("origin"),
                                 rider.getIntProperty("axis"), rider.getIntProperty("plane")});
    bundle.slowPeriods = readNumbers(node.getChildNode("SlowPeriods"));
    bundle.proposalWeights = readNumbers(node.getChildNode("ProposalWeights"));
    return bundle;
}

}  // namespace OpenMMLatent
