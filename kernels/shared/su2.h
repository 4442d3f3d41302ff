// SPDX-License-Identifier: Apache-2.0
//
// One-qubit matrices as quaternions, gates about any axis as rotation vectors, and the gradients of these gates. The
// caller passes sines and cosines, because C++ and CUDA compute them with different functions.
//
// Source: the left Jacobian of the rotation group SO(3); kernels/README.md, section Gradients.
#pragma once

#include "shared/host_device.h"

namespace qf {

struct Vector3 {
    double x, y, z;
};

struct Quaternion {  // the matrix a - i (b X + c Y + d Z)
    double a, b, c, d;
};

// Below these angles, in radians, power series replace the quotients sin(t/2)/t, (1 - cos t)/t^2 and (t - sin t)/t^3,
// which lose digits at small t. The omitted terms of the series change no gradient by more than 2e-16 of |w|.
constexpr double HALF_SINE_SERIES = 1e-4, COSINE_SERIES = 1e-3, SINE_SERIES = 1e-2;

QF_SHARED double dot(Vector3 u, Vector3 v) {
    return u.x * v.x + u.y * v.y + u.z * v.z;
}

// Return the gate exp(-i/2 v.sigma). The caller passes t = |v| and the sine and cosine of t/2.
QF_SHARED Quaternion rotation_of(Vector3 v, double t, double half_sine, double half_cosine) {
    const double s = t < HALF_SINE_SERIES ? 0.5 - t * t / 48 : half_sine / t;
    return {half_cosine, s * v.x, s * v.y, s * v.z};
}

// Turn w = Im <lam|(X, Y, Z)|psi> from the place before the gate q to the place after it. Conjugation with q rotates w
// to w + 2 a (u x w) + 2 u x (u x w) with u = (b, c, d).
QF_SHARED Vector3 turn(const Quaternion& q, const Vector3& w) {
    const Vector3 t{2 * (q.c * w.z - q.d * w.y), 2 * (q.d * w.x - q.b * w.z), 2 * (q.b * w.y - q.c * w.x)};
    return {w.x + q.a * t.x + q.c * t.z - q.d * t.y, w.y + q.a * t.y + q.d * t.x - q.b * t.z,
            w.z + q.a * t.z + q.b * t.y - q.c * t.x};
}

// Return the gradient of the gate exp(-i/2 v.sigma) with respect to v, given w after the gate. The gradient is the left
// Jacobian of the rotation group applied to w: w - p v x w + q v x (v x w) with p = (1 - cos t)/t^2,
// q = (t - sin t)/t^3 and t = |v|. Row j of the Jacobian is e_j + p v x e_j + q v x (v x e_j).
QF_SHARED Vector3 rotation_vector_gradient(const Vector3& v, double t, double sine, double cosine, const Vector3& w) {
    const double t2 = dot(v, v);
    const double p = t < COSINE_SERIES ? 0.5 - t2 / 24 : (1 - cosine) / t2;
    const double q = t < SINE_SERIES ? 1.0 / 6 - t2 / 120 : (t - sine) / (t2 * t);
    const double xy = q * (v.x * v.y), xz = q * (v.x * v.z), yz = q * (v.y * v.z);
    const double xx = 1 + q * (-(v.y * v.y) - v.z * v.z), yy = 1 + q * (-(v.z * v.z) - v.x * v.x);
    const double zz = 1 + q * (-(v.x * v.x) - v.y * v.y);
    const double px = p * v.x, py = p * v.y, pz = p * v.z;
    return {xx * w.x + (pz + xy) * w.y + (xz - py) * w.z, (xy - pz) * w.x + yy * w.y + (px + yz) * w.z,
            (py + xz) * w.x + (yz - px) * w.y + zz * w.z};
}

}  // namespace qf
