// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
%module(package="openmm_latent") openmmlatent

%pythonbegin %{
import openmm
%}

%include "factory.i"
%include "std_string.i"
%include "std_vector.i"
%import(module="openmm") "swig/OpenMMSwigHeaders.i"
%include "swig/typemaps.i"

%{
#include "openmm_latent/LatentIntegrator.h"
#include "openmm_latent/LatentRestraintForce.h"
#include "OpenMM.h"
#include "OpenMMAmoeba.h"
#include "OpenMMDrude.h"
#include "openmm/RPMDIntegrator.h"
#include "openmm/RPMDMonteCarloBarostat.h"
#include <numpy/arrayobject.h>

/** Gives the interpreter to other threads for as long as it lives, also when an exception ends its scope. */
class WithoutInterpreterLock {
public:
    WithoutInterpreterLock() : state(PyEval_SaveThread()) {}
    ~WithoutInterpreterLock() { PyEval_RestoreThread(state); }
private:
    PyThreadState* state;
};

static void raiseOpenMMException(const char* message) {
    PyObject* openmm = PyImport_ImportModule("openmm");
    PyObject* type = PyObject_GetAttrString(openmm, "OpenMMException");
    PyErr_SetString(type, message);
    Py_XDECREF(type);
    Py_XDECREF(openmm);
}
%}

%template(_IntVector) std::vector<int>;
%template(_IntTable) std::vector<std::vector<int> >;
%template(_StringVector) std::vector<std::string>;
%template(_DoubleVector) std::vector<double>;
%template(_BoolVector) std::vector<bool>;

%exception {
    try {
        $action
    } catch (std::exception& error) {
        raiseOpenMMException(error.what());
        SWIG_fail;
    }
}
// Other Python threads run while a trajectory does.
%define RELEASES_LOCK(METHOD)
%exception METHOD {
    try {
        WithoutInterpreterLock unlocked;
        $action
    } catch (std::exception& error) {
        raiseOpenMMException(error.what());
        SWIG_fail;
    }
}
%enddef
RELEASES_LOCK(OpenMMLatent::LatentIntegrator::step)
RELEASES_LOCK(OpenMMLatent::LatentIntegrator::jump)
RELEASES_LOCK(OpenMMLatent::LatentIntegrator::jumpTogether)

// A bundle's archive is bytes in Python.
%typemap(in) const std::string& archive (std::string bytes) {
    char* data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize($input, &data, &size) != 0)
        SWIG_fail;
    bytes.assign(data, size);
    $1 = &bytes;
}
%typemap(freearg) const std::string& archive ""
%typemap(typecheck, precedence=SWIG_TYPECHECK_STRING) const std::string& archive {
    $1 = PyBytes_Check($input);
}

// An adopted integrator's C++ object changes hands; so does the relaxation integrator, once the constructor took it.
%apply SWIGTYPE* DISOWN { OpenMM::Integrator* given };
%newobject OpenMMLatent::LatentIntegrator::_adopt;

// `from` is a keyword of Python.
%rename(_from) OpenMMLatent::JumpRecord::from;
%immutable;
%include "openmm_latent/JumpRecord.h"
%mutable;
%template(_JumpRecords) std::vector<OpenMMLatent::JumpRecord>;

%pythonprepend OpenMMLatent::LatentIntegrator::LatentIntegrator(OpenMM::Integrator* relaxation, int jumpInterval) %{
        if not isinstance(relaxation, openmm.Integrator):
            raise openmm.OpenMMException(
                f"relaxation must be an OpenMM integrator, got {type(relaxation).__name__}")
        if not relaxation.thisown:
            raise openmm.OpenMMException(
                "relaxation already belongs to a CompoundIntegrator or another LatentIntegrator; create a new one")
%}
%pythonappend OpenMMLatent::LatentIntegrator::LatentIntegrator(OpenMM::Integrator* relaxation, int jumpInterval) %{
        relaxation.thisown = False
%}

namespace OpenMMLatent {
class LatentIntegrator;
}
%template(_LatentIntegrators) std::vector<OpenMMLatent::LatentIntegrator*>;

namespace OpenMMLatent {

class LatentIntegrator : public OpenMM::CompoundIntegrator {
public:
    enum Mode { Exploratory = 0, Guarded = 1, Exact = 2 };
    enum Realisation { Decode = 0, Steer = 1 };
    LatentIntegrator(OpenMM::Integrator* relaxation, int jumpInterval);
    int getNumBundles() const;
    int getJumpInterval() const;
    void setJumpInterval(int steps);
    OpenMMLatent::LatentIntegrator::Mode getMode() const;
    void setMode(OpenMMLatent::LatentIntegrator::Mode value);
    OpenMMLatent::LatentIntegrator::Realisation getRealisation() const;
    void setRealisation(OpenMMLatent::LatentIntegrator::Realisation value);
    int getRandomNumberSeed() const;
    void setRandomNumberSeed(int value);
    double getTemperature() const;
    void setTemperature(double kelvin);
    bool getRedrawsVelocities() const;
    void setRedrawsVelocities(bool value);
    int getNumProposals() const;
    void setNumProposals(int value);
    int getNumParticles() const;
    void setNumParticles(int value);
    double getThreshold(const std::string& name) const;
    void setThreshold(const std::string& name, double value);
    long long getNumJumps() const;
    long long getNumAccepted() const;
    static std::vector<std::string> getThresholdNames();
    static std::vector<std::string> getRefusalReasons();
    long long getNumRefused(const std::string& reason) const;
    std::vector<OpenMMLatent::JumpRecord> getJumpRecords(long long afterNumber) const;
    void step(int steps);
    bool jump();
    int getStepsUntilJump() const;
    static std::vector<bool> jumpTogether(const std::vector<OpenMMLatent::LatentIntegrator*>& walkers);
    static void requireTogether(const std::vector<OpenMMLatent::LatentIntegrator*>& walkers);

    %extend {
        void _addBundle(const std::string& name, const std::string& archive, const std::string& runner,
                        const std::vector<int>& particles, const std::vector<int>& wholeParent,
                        const std::vector<std::vector<int> >& riders, int numNoise,
                        int numPropagateNoise, int numProposeNoise,
                        const std::vector<double>& slowPeriods, const std::vector<double>& proposalWeights) {
            OpenMMLatent::LatentBundle bundle;
            bundle.name = name;
            bundle.archive = archive;
            bundle.runner = runner;
            bundle.particles = particles;
            bundle.wholeParent = wholeParent;
            for (auto& rider : riders)
                bundle.riders.push_back({rider[0], rider[1], rider[2], rider[3]});
            bundle.numNoise = numNoise;
            bundle.numPropagateNoise = numPropagateNoise;
            bundle.numProposeNoise = numProposeNoise;
            bundle.slowPeriods = slowPeriods;
            bundle.proposalWeights = proposalWeights;
            self->addBundle(bundle);
        }
        void _setStructureTerms(const std::vector<std::vector<int> >& bonds,
                                const std::vector<std::vector<int> >& chiralCentres,
                                const std::vector<std::vector<int> >& omegas, const std::vector<int>& heavyAtoms) {
            self->setStructureTerms({bonds, chiralCentres, omegas, heavyAtoms});
        }
        void _setDriving(int numSteps, int stepsPerPerturbation, double sigma, double stepSize, double friction,
                         double stepsPerDistance, double leastDistance) {
            self->setDriving(
                {numSteps, stepsPerPerturbation, sigma, stepSize, friction, stepsPerDistance, leastDistance});
        }
        std::vector<double> _getDriving() const {
            const OpenMMLatent::Driving& driving = self->getDriving();
            return {(double) driving.numSteps, (double) driving.stepsPerPerturbation, driving.sigma, driving.stepSize,
                    driving.friction, driving.stepsPerDistance, driving.leastDistance};
        }
        std::vector<double> _getSlowPeriods(int index) const {
            return self->getBundle(index).slowPeriods;
        }
        std::string _getBundleName(int index) const {
            return self->getBundle(index).name;
        }
        static OpenMMLatent::LatentIntegrator& cast(OpenMM::Integrator& integrator) {
            return dynamic_cast<OpenMMLatent::LatentIntegrator&>(integrator);
        }
        static bool isinstance(OpenMM::Integrator& integrator) {
            return dynamic_cast<OpenMMLatent::LatentIntegrator*>(&integrator) != NULL;
        }
        static OpenMMLatent::LatentIntegrator* _adopt(OpenMM::Integrator* given) {
            return dynamic_cast<OpenMMLatent::LatentIntegrator*>(given);
        }
        %pythoncode %{
def getThresholds(self):
    """Return every threshold of the guard and bound of the minimisation, by name."""
    return {name: self.getThreshold(name) for name in self.getThresholdNames()}

def getDriving(self):
    """Return how jumps are driven: the keywords of setDriving and their values."""
    steps, block, sigma, step_size, friction, per_distance, least = self._getDriving()
    return {
        "drivenSteps": int(steps),
        "stepsPerPerturbation": int(block),
        "sigma": sigma,
        "drivingStepSize": step_size,
        "drivingFriction": friction,
        "drivenStepsPerDistance": per_distance,
        "leastDrivenDistance": least,
    }

def setDriving(self, **changes):
    """Change how jumps are driven; keywords as getDriving names them, steps rounded down to whole blocks."""
    driving = self.getDriving()
    unknown = sorted(set(changes) - set(driving))
    if unknown:
        raise openmm.OpenMMException(f"setDriving: {unknown[0]} is unknown; choose of {', '.join(driving)}")
    if openmm.unit.is_quantity(changes.get("drivingStepSize")):
        changes["drivingStepSize"] = changes["drivingStepSize"].value_in_unit(openmm.unit.picosecond)
    if openmm.unit.is_quantity(changes.get("drivingFriction")):
        changes["drivingFriction"] = changes["drivingFriction"].value_in_unit(openmm.unit.picosecond**-1)
    self._setDriving(*{**driving, **changes}.values())

def getRefusals(self):
    """Return how many jumps were refused, by reason."""
    return {reason: self.getNumRefused(reason) for reason in self.getRefusalReasons()}

def addIntegrator(self, integrator):
    """Refuse: a LatentIntegrator has the one relaxation integrator that it was made with."""
    raise openmm.OpenMMException("a LatentIntegrator has one relaxation integrator, given to its constructor")

def setCurrentIntegrator(self, index):
    """Refuse anything but the relaxation integrator."""
    if index != 0:
        raise openmm.OpenMMException("a LatentIntegrator has one relaxation integrator, number 0")

def __getstate__(self):
    return openmm.XmlSerializer.serialize(self)

def __setstate__(self, xml):
    restored = LatentIntegrator._adopt(openmm.XmlSerializer.deserialize(xml))
    restored.thisown = False
    self.this = restored.this
    self.thisown = True

def __copy__(self):
    return LatentIntegrator._adopt(openmm.XmlSerializer.clone(self))

def __deepcopy__(self, memo):
    return self.__copy__()
        %}
    }
};

void registerLatentSerializationProxies();

}  // namespace OpenMMLatent

%include "latentrestraint.i"

%init %{
    OpenMMLatent::registerLatentSerializationProxies();
%}
