// openmm-latent: learned latent jumps for OpenMM. MIT licence, see LICENSE.
#ifndef OPENMM_LATENT_EXPORT_H_
#define OPENMM_LATENT_EXPORT_H_

/** Seen from outside the library in which it is defined; everything else is hidden. */
#define OPENMM_LATENT_EXPORT __attribute__((visibility("default")))

#endif
