/*
 * device_cpu_convolve.h -- convolutions of the CPU's device: oneDNN's, else plain loops.
 */
#ifndef SIM_DEVICE_CPU_CONVOLVE_H
#define SIM_DEVICE_CPU_CONVOLVE_H

struct convolution;
struct convolver; /* what oneDNN has compiled so far */

struct convolver *convolver_create(void);
void convolver_destroy(struct convolver *all);

void convolver_forward(struct convolver *all, const struct convolution *c);
void convolver_data(struct convolver *all, const struct convolution *c);
void convolver_weights(struct convolver *all, const struct convolution *c);

#endif
