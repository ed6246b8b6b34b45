// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
// XmlSerializer's view of a LatentIntegrator: everything the constructor and the setters gave it, bundles included.
#include <memory>

#include "BundleSerialization.h"
#include "DrivingSerialization.h"
#include "LatentRestraintForceProxy.h"
#include "openmm/OpenMMException.h"
#include "openmm_latent/LatentIntegrator.h"
#include "openmm_latent/LatentRestraintForce.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

void writeGroups(SerializationNode& node, const string& name, const vector<vector<int>>& groups) {
    SerializationNode& child = node.createChildNode(name);
    for (auto& group : groups)
        writeGroup(child, "Group", group);
}

vector<vector<int>> readGroups(const SerializationNode& node) {
    vector<vector<int>> groups;
    for (auto& child : node.getChildren())
        groups.push_back(readGroup(child));
    return groups;
}

class LatentIntegratorProxy : public SerializationProxy {
public:
    LatentIntegratorProxy() : SerializationProxy("LatentIntegrator") {}

    void serialize(const void* object, SerializationNode& node) const override {
        const LatentIntegrator& integrator = *reinterpret_cast<const LatentIntegrator*>(object);
        node.setIntProperty("version", 5);
        node.setIntProperty("jumpInterval", integrator.getJumpInterval());
        node.setIntProperty("mode", integrator.getMode());
        node.setIntProperty("realisation", integrator.getRealisation());
        writeDriving(node.createChildNode("Driving"), integrator.getDriving());
        node.setIntProperty("randomSeed", integrator.getRandomNumberSeed());
        node.setDoubleProperty("temperature", integrator.getTemperature());
        node.setBoolProperty("redrawsVelocities", integrator.getRedrawsVelocities());
        node.setIntProperty("numProposals", integrator.getNumProposals());
        node.setIntProperty("numParticles", integrator.getNumParticles());
        SerializationNode& thresholds = node.createChildNode("Thresholds");
        for (auto& entry : integrator.getThresholds())
            thresholds.setDoubleProperty(entry.first, entry.second);
        const StructureTerms& terms = integrator.getStructureTerms();
        SerializationNode& structure = node.createChildNode("StructureTerms");
        writeGroups(structure, "Bonds", terms.bonds);
        writeGroups(structure, "ChiralCentres", terms.chiralCentres);
        writeGroups(structure, "Omegas", terms.omegas);
        writeGroup(structure, "HeavyAtoms", terms.heavyAtoms);
        SerializationNode& bundles = node.createChildNode("Bundles");
        for (int i = 0; i < integrator.getNumBundles(); i++)
            writeBundle(bundles.createChildNode("Bundle"), integrator.getBundle(i));
        node.createChildNode("Relaxation", &integrator.getIntegrator(0));
    }

    void* deserialize(const SerializationNode& node) const override {
        int version = node.getIntProperty("version");
        if (version < 2 || version > 5)
            throw OpenMMException("LatentIntegrator: the XML was written by another version of openmm-latent; make it "
                                  "anew with createIntegrator");
        auto integrator = make_unique<LatentIntegrator>(node.getChildNode("Relaxation").decodeObject<Integrator>(),
                                                        node.getIntProperty("jumpInterval"));
        integrator->setMode((LatentIntegrator::Mode) node.getIntProperty("mode"));
        integrator->setRealisation((LatentIntegrator::Realisation) node.getIntProperty("realisation"));
        integrator->setDriving(readDriving(node.getChildNode("Driving")));
        integrator->setRandomNumberSeed(node.getIntProperty("randomSeed"));
        integrator->setTemperature(node.getDoubleProperty("temperature"));
        integrator->setRedrawsVelocities(node.getBoolProperty("redrawsVelocities"));
        integrator->setNumProposals(node.getIntProperty("numProposals", 1));  // not in version 2
        integrator->setNumParticles(node.getIntProperty("numParticles"));
        for (auto& entry : node.getChildNode("Thresholds").getProperties())
            integrator->setThreshold(entry.first, node.getChildNode("Thresholds").getDoubleProperty(entry.first));
        const SerializationNode& structure = node.getChildNode("StructureTerms");
        integrator->setStructureTerms(
            {readGroups(structure.getChildNode("Bonds")), readGroups(structure.getChildNode("ChiralCentres")),
             readGroups(structure.getChildNode("Omegas")), readGroup(structure.getChildNode("HeavyAtoms"))});
        for (auto& bundle : node.getChildNode("Bundles").getChildren())
            integrator->addBundle(readBundle(bundle));
        return integrator.release();
    }
};

}  // namespace

void registerLatentSerializationProxies() {
    static bool isDone = false;
    if (!isDone) {
        SerializationProxy::registerProxy(typeid(LatentIntegrator), new LatentIntegratorProxy());
        SerializationProxy::registerProxy(typeid(LatentRestraintForce), new LatentRestraintForceProxy());
    }
    isDone = true;
}

}  // namespace OpenMMLatent
