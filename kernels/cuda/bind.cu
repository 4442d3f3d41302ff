// SPDX-License-Identifier: Apache-2.0
//
// Parameter values -> rotations, angles and tables of phases. All computation is in double precision.
//
// Equation:
//   bind_runs    gates of a run = Rz(phi) Ry(2 a) Rz(lambda) up to a global phase, with 0 <= a <= pi/2;
//                run_angles = (lambda, phi) in radians, rotations as in records.cuh
//   bind_terms   term_angles = coefficient * column + offset, in radians, up to multiples of two turns
//   bind_tables  entry = exp(i sum of coefficient * angle * g(p)), for each thread, register bit and extra of a piece
// Layout: columns, run_angles, rotations, term_angles and tables are indexed by slot and row as `place` says;
// run_order, term_order and piece_order list runs, terms and pieces in the order of their slots, the ones that are the
// same in all rows first. run_angles and term_angles are double; rotations and tables have the format of amplitudes.
// Launch: 1-D, blocks of any size. bind_runs and bind_terms take one thread for each of num_shared + rows * num_varying
// entries. bind_tables takes exactly one block for each of shared_pieces + rows * varying_pieces.
// Work: about 30 multiply-adds, one sine and one cosine for each gate of a run; 2 multiply-adds and one population
// count for each item and table entry.
// Traffic: no amplitude is read; each entry is written once.
// Determinism: one thread computes an entry, and adds in the order of the plan.
// Source: kernels/README.md, section Normal form. The kernels call sincospi, because sincos needs a stack to reduce
// large arguments. The division by pi adds one rounding to the angle.
#include "cuda/amplitude.cuh"
#include "cuda/records.cuh"
#include "cuda/tile.cuh"

__device__ __forceinline__ Quaternion product(const Quaternion& p, const Quaternion& q) {
    return {p.a * q.a - p.b * q.b - p.c * q.c - p.d * q.d, p.a * q.b + p.b * q.a + p.c * q.d - p.d * q.c,
            p.a * q.c - p.b * q.d + p.c * q.a + p.d * q.b, p.a * q.d + p.b * q.c - p.c * q.b + p.d * q.a};
}

// Find the slot and the row of an entry: the inverse of `place`.
__device__ __forceinline__ void locate(long long entry, long long num_shared, long long num_varying, int& slot,
                                       int& row) {
    row = entry < num_shared ? 0 : static_cast<int>((entry - num_shared) / num_varying);
    slot = static_cast<int>(entry - row * num_varying);
}

// A piece restores the norm that the scaled rotations since the last piece have left out. With angles up to 74 degrees,
// the norms of 13 rotations are above 6e-8, so that products of two states stay in the range of float.
constexpr double MOST_SCALED_HALF_TAN = 0.75;

extern "C" __global__ void bind_runs(const double* columns, int rows, const Leaf* leaves, const Run* runs,
                                     const int* run_order, const Slots* slots, double2* run_angles,
                                     Rotation* rotations) {
    const long long entry = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (entry >= slots->shared_runs + rows * slots->varying_runs) return;
    int slot, row;
    locate(entry, slots->shared_runs, slots->varying_runs, slot, row);
    const Run& run = runs[run_order[slot]];
    const Columns values(columns, *slots, row);

    Quaternion u{1, 0, 0, 0};
    for (int i = run.first_leaf; i < run.end_leaf; ++i) u = product(leaf_quaternion(leaves[i], values), u);

    if (IS_REAL) {  // The matrix is real, or i times a real matrix: set its rounding errors to 0.
        const bool imaginary = u.b * u.b + u.d * u.d > u.a * u.a + u.c * u.c;
        u = imaginary ? Quaternion{0, u.b, 0, u.d} : Quaternion{u.a, 0, u.c, 0};
    }
    // First column of the matrix: alpha = a - i d = cos(a) exp(-i(phi + lambda)/2),
    // beta = c - i b = sin(a) exp(i(phi - lambda)/2).
    const double cos2 = u.a * u.a + u.d * u.d, sin2 = u.b * u.b + u.c * u.c;
    const double alpha = atan2(-u.d, u.a), beta = atan2(-u.b, u.c);
    constexpr double tiny = 1e-300;  // a squared modulus below this bound counts as 0
    double lambda, phi;
    if (sin2 >= tiny && cos2 >= tiny) {
        lambda = -alpha - beta;
        phi = beta - alpha;
    } else {
        // If sin or cos is 0, only phi + lambda or phi - lambda matters. A run of RX gates has lambda = pi/2 at every
        // other angle, so it has lambda = pi/2 here too. All other runs take lambda = 0.
        lambda = run.only_rx && !IS_REAL ? 0.5 / INVERSE_PI : 0;
        phi = sin2 < tiny ? -2 * alpha - lambda : 2 * beta + lambda;
    }
    run_angles[entry] = make_double2(lambda, phi);
    // Constant gates are rounded, so cos2 + sin2 is only close to 1. The division makes sine and cosine consistent,
    // because the three shears need the sine and the tangent of one angle.
    const double sine = sqrt(sin2 / (cos2 + sin2)), cosine = sqrt(cos2 / (cos2 + sin2));
    const Real half_tan = static_cast<Real>(sine / (1 + cosine));
    const double h = half_tan;  // The sine belongs to the rounded tangent, which keeps the shears closer to a rotation.
    Rotation& rotation = rotations[entry];
    rotation.shears = make_complex(half_tan, static_cast<Real>(2 * h / (1 + h * h)));
    const bool is_scaled = h <= MOST_SCALED_HALF_TAN;
    const Real tangent = is_scaled ? static_cast<Real>(2 * h / (1 - h * h)) : 0;
    const double t = tangent;  // The cosine belongs to the rounded tangent, so that the scaled rotation keeps norms.
    rotation.scaled = make_complex(tangent, is_scaled ? static_cast<Real>(1 / sqrt(1 + t * t)) : 0);
}

extern "C" __global__ void bind_terms(const double* columns, int rows, const Term* terms, const int* term_order,
                                      const Slots* slots, double* term_angles) {
    const long long entry = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (entry >= slots->shared_terms + rows * slots->varying_terms) return;
    int slot, row;
    locate(entry, slots->shared_terms, slots->varying_terms, slot, row);
    const Term& term = terms[term_order[slot]];
    const Columns values(columns, *slots, row);
    term_angles[entry] = small_angle_of(term, values);
}

// The angles of all runs and terms in one row.
struct Angles {
    const Slots& slots;
    const double2* of_runs;
    const double* of_terms;
    int row;

    __device__ __forceinline__ double at(int source, int slot) const {
        if (source == SOURCE_TERM) return of_terms[place(slot, row, slots.shared_terms, slots.varying_terms)];
        const double2 angles = of_runs[place(slot, row, slots.shared_runs, slots.varying_runs)];
        return source == SOURCE_RUN_IN ? angles.x : angles.y;
    }
};

extern "C" __global__ void bind_tables(const Piece* pieces, const int* piece_order, int shared_pieces,
                                       int varying_pieces, const Item* items, const Extra* extras,
                                       const double2* run_angles, const double* term_angles, const Slots* slots,
                                       Amplitude* tables) {
    int slot, row;
    locate(blockIdx.x, shared_pieces, varying_pieces, slot, row);
    const Piece& piece = pieces[piece_order[slot]];
    const Angles angles{*slots, run_angles, term_angles, row};
    Amplitude* table = tables + place(piece.table, row, slots->shared_entries, slots->varying_entries);

    constexpr int first_extra = THREADS_PER_TILE + REGISTER_QUBITS;
    const int num_entries = first_extra + piece.end_extra - piece.first_extra;
    for (int k = threadIdx.x; k < num_entries; k += blockDim.x) {
        double argument = 0;
        if (k < first_extra) {
            const bool of_thread = k < THREADS_PER_TILE;
            const int first = of_thread ? piece.first_thread_item : piece.first_register_item;
            const int end = of_thread ? piece.first_register_item : piece.end_item;
            const int p = of_thread ? tile_index(k, 0, piece.arrangement)
                                    : tile_index(0, 1 << (k - THREADS_PER_TILE), piece.arrangement);
            for (int i = first; i < end; ++i) {
                const Item& item = items[i];
                const int g = generator(item.care, item.value, item.sign, p);
                argument += g * item.coefficient * angles.at(item.source, item.slot);
            }
        } else {
            const Extra& extra = extras[piece.first_extra + k - first_extra];
            argument = extra.coefficient * angles.at(extra.source, extra.slot);
        }
        double sine, cosine;
        sincospi(argument * INVERSE_PI, &sine, &cosine);
        set(table[k], static_cast<Real>(cosine), static_cast<Real>(sine));
    }
}
