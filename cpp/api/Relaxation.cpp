// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "Relaxation.h"

#include <string>
#include <typeinfo>

#include "openmm/AndersenThermostat.h"
#include "openmm/BrownianIntegrator.h"
#include "openmm/CompoundIntegrator.h"
#include "openmm/CustomIntegrator.h"
#include "openmm/DPDIntegrator.h"
#include "openmm/LangevinIntegrator.h"
#include "openmm/LangevinMiddleIntegrator.h"
#include "openmm/NoseHooverIntegrator.h"
#include "openmm/OpenMMException.h"
#include "openmm/QTBIntegrator.h"
#include "openmm/VariableLangevinIntegrator.h"
#include "openmm/VariableVerletIntegrator.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

/** Reaches Integrator's protected members, as only a derived class may, by pointers to members. */
struct Access : public Integrator {
    static bool asksForForce(const Integrator& integrator) {
        return (integrator.*(&Access::kineticEnergyRequiresForce))();
    }
    static vector<Vec3> draw(const Integrator& integrator, const System& system, double temperature, int randomSeed) {
        return (integrator.*(&Access::getVelocitiesForTemperature))(system, temperature, randomSeed);
    }
};

template <class T>
bool readTemperature(const Integrator& relaxation, double& kelvin) {
    auto* typed = dynamic_cast<const T*>(&relaxation);
    if (typed != nullptr)
        kelvin = typed->getTemperature();
    return typed != nullptr;
}

template <class T>
bool readSeed(const Integrator& relaxation, int& seed) {
    auto* typed = dynamic_cast<const T*>(&relaxation);
    if (typed != nullptr)
        seed = typed->getRandomNumberSeed();
    return typed != nullptr;
}

}  // namespace

void checkRelaxation(const Integrator& relaxation) {
    // RPMD and Drude live in libraries of their own; their mangled names serve without linking to them.
    string type = typeid(relaxation).name();
    if (type.find("RPMDIntegrator") != string::npos)
        throw OpenMMException("relaxation must not be an RPMDIntegrator: a jump moves one copy of the system, and ring "
                              "polymers have many; use a classical integrator such as LangevinMiddleIntegrator");
    if (type.find("Drude") != string::npos)
        throw OpenMMException("relaxation must not be a Drude integrator: after a jump Drude particles would be left "
                              "behind their atoms; use a force field without Drude particles");
    if (dynamic_cast<const CompoundIntegrator*>(&relaxation) != nullptr)
        throw OpenMMException("relaxation must be a single integrator, got a CompoundIntegrator; "
                              "give the integrator that does the MD");
}

double findTemperature(const Integrator& relaxation, ContextImpl& context) {
    double kelvin = -1;
    if (readTemperature<LangevinMiddleIntegrator>(relaxation, kelvin) ||
        readTemperature<LangevinIntegrator>(relaxation, kelvin) ||
        readTemperature<VariableLangevinIntegrator>(relaxation, kelvin) ||
        readTemperature<BrownianIntegrator>(relaxation, kelvin) || readTemperature<DPDIntegrator>(relaxation, kelvin) ||
        readTemperature<QTBIntegrator>(relaxation, kelvin))
        return kelvin;
    auto* noseHoover = dynamic_cast<const NoseHooverIntegrator*>(&relaxation);
    if (noseHoover != nullptr && noseHoover->getNumThermostats() > 0)
        return noseHoover->getTemperature(0);
    auto& parameters = context.getParameters();
    auto thermostat = parameters.find(AndersenThermostat::Temperature());
    return thermostat == parameters.end() ? -1 : thermostat->second;
}

void requireBoltzmann(const Integrator& relaxation) {
    if (dynamic_cast<const QTBIntegrator*>(&relaxation) != nullptr)
        throw OpenMMException(
            "mode 'exact' needs a relaxation that samples the classical Boltzmann distribution, got a "
            "QTBIntegrator; use LangevinMiddleIntegrator, or guarded mode");
}

bool hasVariableStep(const Integrator& relaxation) {
    return dynamic_cast<const VariableLangevinIntegrator*>(&relaxation) != nullptr ||
           dynamic_cast<const VariableVerletIntegrator*>(&relaxation) != nullptr;
}

int findRandomNumberSeed(const Integrator& relaxation, const System& system) {
    int seed = 0;
    for (int i = 0; i < system.getNumForces(); i++)
        if (auto* thermostat = dynamic_cast<const AndersenThermostat*>(&system.getForce(i)))
            seed = thermostat->getRandomNumberSeed();
    readSeed<LangevinMiddleIntegrator>(relaxation, seed) || readSeed<LangevinIntegrator>(relaxation, seed) ||
        readSeed<VariableLangevinIntegrator>(relaxation, seed) || readSeed<BrownianIntegrator>(relaxation, seed) ||
        readSeed<DPDIntegrator>(relaxation, seed) || readSeed<QTBIntegrator>(relaxation, seed) ||
        readSeed<CustomIntegrator>(relaxation, seed);
    return seed;
}

bool relaxationKineticEnergyRequiresForce(const Integrator& relaxation) { return Access::asksForForce(relaxation); }

vector<Vec3> relaxationVelocities(const Integrator& relaxation, const System& system, double temperature,
                                  int randomSeed) {
    return Access::draw(relaxation, system, temperature, randomSeed);
}

}  // namespace OpenMMLatent
