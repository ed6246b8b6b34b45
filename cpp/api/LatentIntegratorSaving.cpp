// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
// Checkpoints and States: the phase, the tally and the models' memories, beside what the relaxation saves itself.
#include <cstddef>
#include <istream>
#include <ostream>
#include <sstream>

#include "Bytes.h"
#include "DrivingSerialization.h"
#include "openmm/OpenMMException.h"
#include "openmm/internal/ContextImpl.h"
#include "openmm/serialization/SerializationNode.h"
#include "openmm_latent/LatentIntegrator.h"
#include "openmm_latent/LatentJumpKernel.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

// 2: without the number of proposals; 3: without the driven steps for each unit of way; 4: without the least distance,
// and the refusals for it.
const int Version = 5, OldestVersion = 2;
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

}  // namespace

void LatentIntegrator::createCheckpoint(ostream& stream) const {
    writeNumber(stream, Version);
    writeBytes(stream, bundleFingerprints);
    writeNumber(stream, numJumps);
    writeNumber(stream, stepsSinceJump);
    for (auto& reason : getRefusalReasons())
        writeNumber(stream, getNumRefused(reason));
    // Tuned between jumps, perhaps: a restart goes on with what was in use.
    stream.write((const char*) &driving, sizeof(driving));
    writeNumber(stream, numProposals);
    for (int i = 0; i < getNumBundles(); i++)
        writeBytes(stream, kernel.getAs<const LatentJumpKernel>().getState(i));
    CompoundIntegrator::createCheckpoint(stream);
}

void LatentIntegrator::loadCheckpoint(istream& stream) {
    long long version = readNumber(stream);
    if (version < OldestVersion || version > Version || readBytes(stream) != bundleFingerprints)
        throw OpenMMException(string("the checkpoint ") + OtherBundles);
    // All of it is read before any of it counts.
    long long jumps = readNumber(stream), sinceJump = readNumber(stream);
    map<string, long long> refused;
    for (auto& reason : getRefusalReasons())
        refused[reason] = version < 5 && reason == "near" ? 0 : readNumber(stream);
    Driving saved;
    size_t size = version < 4   ? offsetof(Driving, stepsPerDistance)
                  : version < 5 ? offsetof(Driving, leastDistance)
                                : sizeof(saved);
    if (!stream.read((char*) &saved, (streamsize) size))
        throw OpenMMException("the checkpoint ends inside the LatentIntegrator's part; it is truncated");
    long long proposals = version == OldestVersion ? 1 : readNumber(stream);
    vector<string> states;
    for (int i = 0; i < getNumBundles(); i++)
        states.push_back(readBytes(stream));
    CompoundIntegrator::loadCheckpoint(stream);
    adopt(jumps, sinceJump, refused, states);
    setDriving(saved);
    setNumProposals(drives() ? 1 : (int) proposals);
    hasLoadedCheckpoint = true;
}

void LatentIntegrator::adopt(long long jumps, long long sinceJump, const map<string, long long>& refused,
                             const vector<string>& states) {
    for (int i = 0; i < getNumBundles(); i++)
        kernel.getAs<LatentJumpKernel>().setState(i, states[i]);
    numJumps = jumps;
    stepsSinceJump = sinceJump;
    refusals = refused;
    records.clear();
}

void LatentIntegrator::serializeParameters(SerializationNode& node) const {
    node.setIntProperty("version", Version);
    node.setStringProperty("bundles", bundleFingerprints);
    node.setLongProperty("numJumps", numJumps);
    node.setLongProperty("stepsSinceJump", stepsSinceJump);
    SerializationNode& refused = node.createChildNode("Refused");
    for (auto& reason : getRefusalReasons())
        refused.setLongProperty(reason, getNumRefused(reason));
    writeDriving(node.createChildNode("Driving"), driving);
    node.setIntProperty("numProposals", numProposals);
    SerializationNode& states = node.createChildNode("ModelStates");
    for (int i = 0; i < getNumBundles(); i++)
        states.createChildNode("State").setStringProperty("bytes",
                                                          toHex(kernel.getAs<const LatentJumpKernel>().getState(i)));
    CompoundIntegrator::serializeParameters(node.createChildNode("Relaxation"));
}

void LatentIntegrator::deserializeParameters(const SerializationNode& node) {
    if (!node.hasProperty("bundles"))
        return;  // a State of plain MD: its frame is taken, and the phase and the tally stay as they are
    int version = node.getIntProperty("version", 0);
    if (version < OldestVersion || version > Version || node.getStringProperty("bundles") != bundleFingerprints)
        throw OpenMMException(string("the State ") + OtherBundles);
    map<string, long long> refused;
    for (auto& reason : getRefusalReasons())
        refused[reason] = node.getChildNode("Refused").getLongProperty(reason, 0);  // not all in older versions
    vector<string> states;
    for (auto& child : node.getChildNode("ModelStates").getChildren())
        states.push_back(fromHex(child.getStringProperty("bytes")));
    if ((int) states.size() != getNumBundles())
        throw OpenMMException("the State holds another number of model states than there are bundles; save it again");
    CompoundIntegrator::deserializeParameters(node.getChildNode("Relaxation"));
    adopt(node.getLongProperty("numJumps"), node.getLongProperty("stepsSinceJump"), refused, states);
    setDriving(readDriving(node.getChildNode("Driving")));
    setNumProposals(drives() ? 1 : node.getIntProperty("numProposals", 1));
}

}  // namespace OpenMMLatent
