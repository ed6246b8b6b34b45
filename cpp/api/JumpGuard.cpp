// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "JumpGuard.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <numeric>
#include <unordered_map>

#include "openmm/System.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

namespace {

/** For each particle, where its bonded neighbours begin in a list of all of them. */
vector<int> directBegins(const vector<vector<int>>& bonds, int numParticles) {
    vector<int> begins((size_t) numParticles + 1, 0);
    for (auto& bond : bonds)
        for (int atom : bond)
            begins[(size_t) atom + 1]++;
    partial_sum(begins.begin(), begins.end(), begins.begin());
    return begins;
}

}  // namespace

BondedPairs::BondedPairs(const StructureTerms& terms, int numParticles) : begins((size_t) numParticles + 1, 0) {
    // The neighbours of i are direct[first[i]] to direct[first[i + 1] - 1].
    vector<int> first = directBegins(terms.bonds, numParticles), next = first, direct(2 * terms.bonds.size());
    for (auto& bond : terms.bonds) {
        direct[(size_t) next[bond[0]]++] = bond[1];
        direct[(size_t) next[bond[1]]++] = bond[0];
    }
    vector<bool> isHeavy((size_t) numParticles, false);
    for (int atom : terms.heavyAtoms)
        isHeavy[atom] = true;
    vector<int> near;  // each atom's, before those that are there twice are dropped
    for (int atom = 0; atom < numParticles; atom++) {
        near.clear();
        if (isHeavy[atom]) {
            near.push_back(atom);
            size_t reached = 0;
            for (int bonds = 0; bonds < 3; bonds++)
                for (size_t last = near.size(); reached < last; reached++)
                    near.insert(near.end(), direct.begin() + first[near[reached]],
                                direct.begin() + first[near[reached] + 1]);
        }
        sort(near.begin(), near.end());
        near.erase(unique(near.begin(), near.end()), near.end());
        copy_if(near.begin(), near.end(), back_inserter(others), [&](int other) { return isHeavy[other]; });
        begins[(size_t) atom + 1] = others.size();
    }
    others.shrink_to_fit();
}

bool BondedPairs::contains(int first, int second) const {
    auto begin = others.begin() + (ptrdiff_t) begins[first], end = others.begin() + (ptrdiff_t) begins[first + 1];
    return binary_search(begin, end, second);
}

JumpGuard::JumpGuard(const StructureTerms& terms, const map<string, double>& thresholds, ContextImpl& context)
        : terms(terms), thresholds(thresholds), context(context), bonded(terms, context.getSystem().getNumParticles()),
          isPeriodic(context.getSystem().usesPeriodicBoundaryConditions()) {}

void JumpGuard::begin() {
    context.getPositions(before);
    context.getPeriodicBoxVectors(box[0], box[1], box[2]);
}

Vec3 JumpGuard::between(const vector<Vec3>& positions, int i, int j) const {
    Vec3 delta = positions[i] - positions[j];
    if (isPeriodic)
        for (int axis = 2; axis >= 0; axis--)
            delta -= box[axis] * round(delta[axis] / box[axis][axis]);
    return delta;
}

double JumpGuard::distance(const vector<Vec3>& positions, int i, int j) const {
    Vec3 delta = between(positions, i, j);
    return sqrt(delta.dot(delta));
}

/** Six times the signed volume of the tetrahedron of a centre and three neighbours. */
double JumpGuard::handedness(const vector<Vec3>& positions, const vector<int>& atoms) const {
    Vec3 a = between(positions, atoms[1], atoms[0]);
    Vec3 b = between(positions, atoms[2], atoms[0]);
    Vec3 c = between(positions, atoms[3], atoms[0]);
    return a.dot(b.cross(c));
}

/** Torsion [rad] of four atoms, IUPAC sign. */
double JumpGuard::torsion(const vector<Vec3>& positions, const vector<int>& atoms) const {
    Vec3 first = between(positions, atoms[1], atoms[0]);
    Vec3 axis = between(positions, atoms[2], atoms[1]);
    Vec3 last = between(positions, atoms[3], atoms[2]);
    Vec3 m = first.cross(axis), n = axis.cross(last);
    return atan2(sqrt(axis.dot(axis)) * first.dot(n), m.dot(n));
}

string JumpGuard::judge(const JumpRecord& record) const {
    if (!isfinite(record.energyAfter) || !isfinite(record.isSteered ? record.work : record.largestForce))
        return "nan";
    if (record.mode == LatentIntegrator::Exploratory)
        return "";
    // A steered frame is as hot as the one it left, solvent and all: only the work tells what became of it.
    if (record.isSteered && record.work > threshold("maxWork"))
        return "work";
    if (!record.isSteered && record.energyAfter - record.energyBefore > threshold("maxEnergyIncrease"))
        return "energy";
    if (!record.isSteered && record.largestForce > threshold("maxForce"))
        return "force";
    vector<Vec3> after;
    context.getPositions(after);
    if (constraintError(after) > threshold("maxConstraintError"))
        return "constraint";
    if (!keepsChirality(after))
        return "chirality";
    if (!keepsOmegas(after))
        return "omega";
    if (!keepsBonds(after))
        return "bond";
    return hasClash(after) ? "clash" : "";
}

double JumpGuard::constraintError(const vector<Vec3>& after) const {
    const System& system = context.getSystem();
    double largest = 0;
    for (int i = 0; i < system.getNumConstraints(); i++) {
        int first, second;
        double length;
        system.getConstraintParameters(i, first, second, length);
        largest = max(largest, fabs(distance(after, first, second) - length) / length);
    }
    return largest;
}

bool JumpGuard::keepsChirality(const vector<Vec3>& after) const {
    for (auto& centre : terms.chiralCentres)
        if (handedness(before, centre) * handedness(after, centre) <= 0)
            return false;
    return true;
}

bool JumpGuard::keepsOmegas(const vector<Vec3>& after) const {
    for (auto& omega : terms.omegas) {
        double planar = fabs(torsion(before, omega)) < M_PI / 2 ? 0 : M_PI;
        double deviation = fabs(torsion(after, omega)) - planar;
        if (fabs(deviation) > threshold("maxOmegaDeviation"))
            return false;
    }
    return true;
}

bool JumpGuard::keepsBonds(const vector<Vec3>& after) const {
    for (auto& bond : terms.bonds) {
        double length = distance(before, bond[0], bond[1]);
        if (fabs(distance(after, bond[0], bond[1]) - length) > threshold("maxBondChange") * length)
            return false;
    }
    return true;
}

bool JumpGuard::hasClash(const vector<Vec3>& after) const {
    // Heavy atoms are put in cells as wide as the least distance allowed, so that the search stays linear in atoms.
    // In a periodic system each is taken in its image nearest to the first.
    double cell = threshold("minDistance");
    if (cell == 0 || terms.heavyAtoms.empty())
        return false;
    int first = terms.heavyAtoms[0];
    auto key = [](long long x, long long y, long long z) { return (x * 2097143 + y) * 2097143 + z; };
    unordered_map<long long, vector<int>> cells;
    for (int i : terms.heavyAtoms) {
        Vec3 fromFirst = between(after, i, first);
        array<long long, 3> place;
        for (int k = 0; k < 3; k++)
            place[k] = (long long) floor(fromFirst[k] / cell);
        for (int x = -1; x <= 1; x++)
            for (int y = -1; y <= 1; y++)
                for (int z = -1; z <= 1; z++) {
                    auto found = cells.find(key(place[0] + x, place[1] + y, place[2] + z));
                    if (found == cells.end())
                        continue;
                    for (int j : found->second)
                        // What was as close before, a metal's ligand say, is no clash.
                        if (distance(after, i, j) < cell && !bonded.contains(i, j) && distance(before, i, j) >= cell)
                            return true;
                }
        cells[key(place[0], place[1], place[2])].push_back(i);
    }
    return false;
}

}  // namespace OpenMMLatent
