// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#include "Bytes.h"

#include "openmm/OpenMMException.h"

using namespace OpenMM;
using namespace std;

namespace OpenMMLatent {

string fingerprint(const string& bytes) {
    uint64_t hash = 0xcbf29ce484222325ull;
    for (unsigned char byte : bytes)
        hash = (hash ^ byte) * 0x100000001b3ull;
    string raw;
    for (int shift = 56; shift >= 0; shift -= 8)
        raw += (char) (hash >> shift);
    return toHex(raw);
}

int mixedSeed(int seed, long long number) {
    uint64_t mixed = ((uint64_t) (uint32_t) seed << 32) + (uint64_t) number * 0x9e3779b97f4a7c15ull;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ull;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebull;
    mixed ^= mixed >> 31;
    return (int) (mixed % 0x7fffffffull) + 1;
}

string toHex(const string& bytes) {
    static const char digits[] = "0123456789abcdef";
    string text;
    text.reserve(2 * bytes.size());
    for (unsigned char byte : bytes) {
        text += digits[byte >> 4];
        text += digits[byte & 15];
    }
    return text;
}

string fromHex(const string& digits) {
    auto value = [](char digit) {
        if (digit >= '0' && digit <= '9')
            return digit - '0';
        if (digit >= 'a' && digit <= 'f')
            return digit - 'a' + 10;
        throw OpenMMException("the XML holds a damaged bundle; serialise the integrator or the System again");
    };
    string bytes;
    bytes.reserve(digits.size() / 2);
    for (size_t i = 0; i + 1 < digits.size(); i += 2)
        bytes += (char) (16 * value(digits[i]) + value(digits[i + 1]));
    return bytes;
}

}  // namespace OpenMMLatent
