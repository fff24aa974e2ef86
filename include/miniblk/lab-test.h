/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a test may say to the lab. Built for the native library all of it does nothing, so that
 * one source serves both.
 *
 *      lab_faults(true);               requests may fail from here on
 *      ...
 *      lab_faults(false);              the disk has healed: everything must end now
 *
 *      lab_power_cut();                what was not flushed is gone, or a part of it
 *      ... close the image, errors are no wonder
 *      lab_power_on();
 *      ... open it again and look
 */
#ifndef MINIBLK_LAB_TEST_H
#define MINIBLK_LAB_TEST_H

#include <stdbool.h>

#ifdef MINIBLK_LAB

static inline bool lab_in_lab(void)
{
    return true;
}
/*
 * A constant: how often a test repeats itself to be sure. In the lab a few times will do, each
 * schedule is another try; and no schedule comes to its end with millions of steps.
 */
#define LAB_ROUNDS(native, in_lab) (in_lab)

/*
 * From now on each request to a file may fail with EIO or ENOSPC or be cut short, as
 * the strategy chooses, or not any more. Only with LAB_FAULTS=on.
 */
void lab_faults(bool on);

/*
 * All files lose what has not been flushed, or any part of it, by sectors, as the strategy
 * chooses. Until lab_power_on() all requests fail with EIO. Natively: no power is cut.
 */
void lab_power_cut(void);
void lab_power_on(void);

#else

static inline bool lab_in_lab(void)
{
    return false;
}
#define LAB_ROUNDS(native, in_lab) (native)
static inline void lab_faults(bool on)
{
}
static inline void lab_power_cut(void)
{
}
static inline void lab_power_on(void)
{
}

#endif
#endif
