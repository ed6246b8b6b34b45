// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "RestraintEvaluator.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <cmath>

#include "openmm/OpenMMException.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

/** The proper rotation Q (3, 3) that brings y Q closest to x; both (n, 3) float64, centred. Source: Kabsch 1976. */
at::Tensor superposition(const at::Tensor& y, const at::Tensor& x) {
    // Nine numbers: the host finds their singular vectors sooner than a device would.
    auto [left, sizes, right] = at::linalg_svd(y.t().matmul(x).to(at::kCPU));
    if (at::linalg_det(left.matmul(right)).item<double>() < 0)
        left.select(1, 2).neg_();
    return left.matmul(right).to(x.device());
}

at::Tensor centred(const vector<Vec3>& positions) {
    at::Tensor values = at::empty({(int64_t) positions.size(), 3}, at::kDouble);
    copy(positions.begin(), positions.end(), reinterpret_cast<Vec3*>(values.data_ptr<double>()));
    return values.sub_(values.mean(0, true));
}

}  // namespace

RestraintEvaluator::RestraintEvaluator(const LatentBundle& bundle, const vector<double>& weights, at::Device device)
        : name(bundle.name), periods(bundle.slowPeriods), weights(weights), device(device),
          wholeMolecules(bundle, {}, device) {
    if (periods.empty())
        return;
    runner = loadModule(bundle, device);
    for (const char* method : {"encode", "slow"})
        if (!runner->has(method))
            throw OpenMMException("bundle '" + name + "' has no method '" + method +
                                  "', which a restraint of its slow coordinates needs; export it again");
}

template <class Body>
auto RestraintEvaluator::guarded(Body body) const {
    try {
        return body();
    } catch (const OpenMMException&) {
        throw;  // it names the bundle
    } catch (const exception& error) {
        string text = error.what();
        throw OpenMMException("bundle '" + name + "' failed outside its module: " + text.substr(0, text.find('\n')));
    }
}

double RestraintEvaluator::evaluate(at::Tensor& positions, const Vec3* box, double stiffness,
                                    const vector<double>& target, at::Tensor* forces) {
    return guarded([&] {
        c10::InferenceMode withoutGradients;
        prepare(positions, box);
        return runner == nullptr ? pullStructure(positions, stiffness, target[0], forces)
                                 : pullSlow(positions, stiffness, target, forces);
    });
}

vector<double> RestraintEvaluator::slow(at::Tensor& positions, const Vec3* box) {
    return guarded([&] {
        c10::InferenceMode withoutGradients;
        prepare(positions, box);
        return onHost(runner->slow(positions.to(at::kFloat).unsqueeze(0)));
    });
}

void RestraintEvaluator::prepare(at::Tensor& positions, const Vec3* box) const {
    if (box != nullptr)
        wholeMolecules.mend(positions, box);
    at::Tensor centre = positions.mean(0, true);
    // Before the module is asked: what it makes of a broken frame (an eigenvector, say) is not always a NaN. On other
    // devices that would cost a transfer, and the energy tells.
    if (device.is_cpu() && !isfinite(centre.sum().item<double>()))
        throw notFinite();
    positions.sub_(centre);
}

OpenMMException RestraintEvaluator::notFinite() const {
    return OpenMMException("bundle '" + name + "': the slow coordinates or their target are not finite; the frame is " +
                           "broken (minimise first, or shorten the time step), or the model is");
}

vector<double> RestraintEvaluator::onHost(const at::Tensor& slow) const {
    if (slow.numel() != (int64_t) periods.size())
        throw OpenMMException("bundle '" + name + "': slow must return " + to_string(periods.size()) +
                              " coordinates, got " + to_string(slow.numel()) + "; export it again");
    at::Tensor values = slow.to(at::kCPU, at::kDouble).contiguous();
    return vector<double>(values.data_ptr<double>(), values.data_ptr<double>() + periods.size());
}

double RestraintEvaluator::pullSlow(const at::Tensor& positions, double stiffness, const vector<double>& target,
                                    at::Tensor* forces) {
    at::Tensor input = positions.to(at::kFloat).unsqueeze(0);  // (1, n_atoms, 3)
    vector<double> values;
    if (forces == nullptr)
        values = onHost(runner->slow(input));
    else {
        vector<double> strengths;
        for (double weight : weights)
            strengths.push_back(stiffness * weight);
        auto [slow, gradient] = runner->slowWithGradient(input, asRow(target), asRow(strengths));
        values = onHost(slow);
        *forces = gradient.squeeze(0).to(at::kDouble).neg_();
    }
    double energy = 0;
    for (size_t i = 0; i < values.size(); i++) {
        double difference = values[i] - target[i];
        if (periods[i] > 0)
            difference = remainder(difference, periods[i]);  // the short way round
        energy += stiffness / 2 * weights[i] * difference * difference;
    }
    if (!isfinite(energy))
        throw notFinite();
    return energy;
}

at::Tensor RestraintEvaluator::asRow(const vector<double>& numbers) const {
    return at::tensor(numbers, at::kDouble).to(at::kFloat).unsqueeze(0).to(device);
}

double RestraintEvaluator::pullStructure(const at::Tensor& positions, double stiffness, double progress,
                                         at::Tensor* forces) const {
    if (!isfinite(progress) || !isfinite(positions.sum().item<double>()))
        throw OpenMMException("bundle '" + name + "': the frame that is pulled to a structure is not finite; " +
                              "minimise first, or shorten the time step");
    at::Tensor structure = pathStart + progress * pathChange;  // (n_atoms, 3)
    // Place and orientation minimise the energy, so the forces have no part from them.
    at::Tensor difference = positions - structure.matmul(superposition(structure, positions));
    double energy = stiffness / 2 * difference.square().sum().item<double>();
    if (forces != nullptr)
        *forces = difference.mul_(-stiffness);
    return energy;
}

void RestraintEvaluator::setPath(const vector<Vec3>& start, const vector<Vec3>& end) {
    guarded([&] {
        c10::InferenceMode withoutGradients;
        at::Tensor first = centred(start), last = centred(end);
        if (!first.isfinite().all().item<bool>() || !last.isfinite().all().item<bool>())
            throw OpenMMException("setPath: start and end for bundle '" + name + "' must be finite");
        last = last.matmul(superposition(last, first));
        pathStart = first.to(device);
        pathChange = (last - first).to(device);
    });
}

}  // namespace OpenMMLatent
