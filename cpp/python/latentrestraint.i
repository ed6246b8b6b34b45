// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
// Included by openmmlatent.i, whose typemaps and exception handling serve here, too.
%{
// What OpenMM's typemaps of std::vector<Vec3> ask for. Their fast way would need numpy's C API to be imported.
using OpenMM::Vec3;
static bool isNumpyAvailable() {
    return false;
}
%}
%apply const std::vector<Vec3>& { const std::vector<OpenMM::Vec3>& };
// An adopted force's C++ object changes hands.
%apply SWIGTYPE* DISOWN { OpenMM::Force* takenForce };
%newobject OpenMMLatent::LatentRestraintForce::_adopt;

namespace OpenMMLatent {

class LatentRestraintForce : public OpenMM::Force {
public:
    int getNumSlow() const;
    std::string getStiffnessParameter() const;
    std::string getTargetParameter(int index) const;
    std::string getProgressParameter() const;
    double getDefaultStiffness() const;
    void setDefaultStiffness(double k);
    std::vector<double> getDefaultTarget() const;
    void setDefaultTarget(const std::vector<double>& target);
    std::vector<double> getWeights() const;
    void setWeights(const std::vector<double>& values);
    std::vector<double> getSlow(OpenMM::Context& context) const;
    void setPath(OpenMM::Context& context, const std::vector<OpenMM::Vec3>& start,
                 const std::vector<OpenMM::Vec3>& end) const;

    %extend {
        LatentRestraintForce(const std::string& bundleName, const std::string& archive, const std::string& runner,
                             const std::vector<int>& particles, const std::vector<int>& wholeParent,
                             const std::vector<double>& slowPeriods, const std::string& name) {
            OpenMMLatent::LatentBundle bundle;
            bundle.name = bundleName;
            bundle.archive = archive;
            bundle.runner = runner;
            bundle.particles = particles;
            bundle.wholeParent = wholeParent;
            bundle.slowPeriods = slowPeriods;
            return new OpenMMLatent::LatentRestraintForce(bundle, name);
        }
        std::string getBundleName() const {
            return self->getBundle().name;
        }
        std::vector<int> getParticles() const {
            return self->getBundle().particles;
        }
        std::vector<double> getSlowPeriods() const {
            return self->getBundle().slowPeriods;
        }
        static OpenMMLatent::LatentRestraintForce& cast(OpenMM::Force& force) {
            return dynamic_cast<OpenMMLatent::LatentRestraintForce&>(force);
        }
        static bool isinstance(OpenMM::Force& force) {
            return dynamic_cast<OpenMMLatent::LatentRestraintForce*>(&force) != NULL;
        }
        static OpenMMLatent::LatentRestraintForce* _adopt(OpenMM::Force* takenForce) {
            return dynamic_cast<OpenMMLatent::LatentRestraintForce*>(takenForce);
        }
        %pythoncode %{
def __getstate__(self):
    return openmm.XmlSerializer.serialize(self)

def __setstate__(self, xml):
    restored = LatentRestraintForce._adopt(openmm.XmlSerializer.deserialize(xml))
    restored.thisown = False
    self.this = restored.this
    self.thisown = True

def __copy__(self):
    return LatentRestraintForce._adopt(openmm.XmlSerializer.clone(self))

def __deepcopy__(self, memo):
    return self.__copy__()
        %}
    }
};

}  // namespace OpenMMLatent
