// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_BYTES_H_
#define OPENMM_LATENT_BYTES_H_

#include <cstdint>
#include <string>

namespace OpenMMLatent {

/** 64-bit FNV-1a hash of some bytes as 16 hexadecimal digits: tells bundles apart, guards against nothing. */
std::string fingerprint(const std::string& bytes);

/** A seed that is never 0, different for each (seed, number): one round of the SplitMix64 finaliser. */
int mixedSeed(int seed, long long number);

/** Bytes as hexadecimal digits and back, for XML; throws OpenMMException for a character that is no digit. */
std::string toHex(const std::string& bytes);
std::string fromHex(const std::string& digits);

}  // namespace OpenMMLatent

#endif
