// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
// Checkpoints and States: the phase, the tally and the models' memories, beside what the relaxation saves itself.
#include <istream>
#include <ostream>
#include <sstream>

#include "Bytes.h"
#include "openmm/OpenMMException.h"
#include "openmm/internal/ContextImpl.h"
#include "openmm/serialization/SerializationNode.h"
#include "openmm_latent/LatentIntegrator.h"
#include "openmm_latent/LatentJumpKernel.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

const int Version = 1;
const char* const OtherBundles =
    "was written with other bundles, or another number of them; give createIntegrator the models that were in use then";

void writeNumber(ostream& stream, long long value) { stream.write((const char*) &value, sizeof(value)); }

long long readNumber(istream& stream) {
    long long value = 0;
    if (!stream.read((char*) &value, sizeof(value)))
        throw OpenMMException("the checkpoint ends inside the LatentIntegrator's part; it is truncated, or was written "
                              "with another integrator");
    return value;
}

void writeBytes(ostream& stream, const string& bytes) {
    writeNumber(stream, (long long) bytes.size());
    stream.write(bytes.data(), (streamsize) bytes.size());
}

string readBytes(istream& stream) {
    long long size = readNumber(stream);
    if (size < 0 || size > (1ll << 40))
        throw OpenMMException(string("the checkpoint ") + OtherBundles);
    string bytes;
    // Read in pieces, so that a damaged length cannot ask for more memory than the checkpoint holds.
    for (char piece[4096]; (long long) bytes.size() < size;) {
        auto wanted = (streamsize) min<long long>(sizeof(piece), size - (long long) bytes.size());
        if (!stream.read(piece, wanted))
            throw OpenMMException("the checkpoint ends inside the LatentIntegrator's part; it is truncated");
        bytes.append(piece, (size_t) wanted);
    }
    return bytes;
}

string fingerprints(const LatentIntegrator& integrator) {
    string all;
    for (int i = 0; i < integrator.getNumBundles(); i++)
        all += fingerprint(integrator.getBundle(i).archive);
    return all;
}

}  // namespace

void LatentIntegrator::createCheckpoint(ostream& stream) const {
    writeNumber(stream, Version);
    writeBytes(stream, fingerprints(*this));
    writeNumber(stream, numJumps);
    writeNumber(stream, stepsSinceJump);
    for (auto& reason : getRefusalReasons())
        writeNumber(stream, getNumRefused(reason));
    for (int i = 0; i < getNumBundles(); i++)
        writeBytes(stream, kernel.getAs<const LatentJumpKernel>().getState(i));
    CompoundIntegrator::createCheckpoint(stream);
}

void LatentIntegrator::loadCheckpoint(istream& stream) {
    if (readNumber(stream) != Version || readBytes(stream) != fingerprints(*this))
        throw OpenMMException(string("the checkpoint ") + OtherBundles);
    numJumps = readNumber(stream);
    stepsSinceJump = readNumber(stream);
    for (auto& reason : getRefusalReasons())
        refusals[reason] = readNumber(stream);
    for (int i = 0; i < getNumBundles(); i++)
        kernel.getAs<LatentJumpKernel>().setState(i, readBytes(stream));
    hasLoadedCheckpoint = true;
    records.clear();
    CompoundIntegrator::loadCheckpoint(stream);
}

void LatentIntegrator::serializeParameters(SerializationNode& node) const {
    node.setIntProperty("version", Version);
    node.setStringProperty("bundles", fingerprints(*this));
    node.setLongProperty("numJumps", numJumps);
    node.setLongProperty("stepsSinceJump", stepsSinceJump);
    SerializationNode& refused = node.createChildNode("Refused");
    for (auto& reason : getRefusalReasons())
        refused.setLongProperty(reason, getNumRefused(reason));
    SerializationNode& states = node.createChildNode("ModelStates");
    for (int i = 0; i < getNumBundles(); i++)
        states.createChildNode("State").setStringProperty("bytes",
                                                          toHex(kernel.getAs<const LatentJumpKernel>().getState(i)));
    CompoundIntegrator::serializeParameters(node.createChildNode("Relaxation"));
}

void LatentIntegrator::deserializeParameters(const SerializationNode& node) {
    if (node.getIntProperty("version", 0) != Version || node.getStringProperty("bundles", "") != fingerprints(*this))
        throw OpenMMException(string("the State ") + OtherBundles);
    numJumps = node.getLongProperty("numJumps");
    stepsSinceJump = node.getLongProperty("stepsSinceJump");
    for (auto& reason : getRefusalReasons())
        refusals[reason] = node.getChildNode("Refused").getLongProperty(reason);
    auto& states = node.getChildNode("ModelStates").getChildren();
    for (int i = 0; i < getNumBundles(); i++)
        kernel.getAs<LatentJumpKernel>().setState(i, fromHex(states[i].getStringProperty("bytes")));
    records.clear();
    CompoundIntegrator::deserializeParameters(node.getChildNode("Relaxation"));
}

}  // namespace OpenMMLatent
