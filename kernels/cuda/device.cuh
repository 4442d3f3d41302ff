// SPDX-License-Identifier: Apache-2.0
//
// What all CUDA kernels share: number formats, index arithmetic, and the records of a plan as the device reads them.
// qiskit_fused/engines/cuda/passes.py writes the records; their fields are the fields of its NumPy dtypes, in this order.
//
// Addresses. An amplitude lies at an address of N bits, one per qubit. A window is t of these bits; the 2^t amplitudes
// that differ in them only are a tile, held by one group of 2^(t - r) threads with 2^r amplitudes each in registers.
// In arrangement s the r register bits are tile bits s .. s + r - 1 and the bits of the thread number are the others.
// The local index of an amplitude is its tile index, with the number of its tile in the bits above.
//
// Slots. What has one value for all rows comes first; what differs from row to row follows, row by row (`place`).
//
// Formats. A number is Real, float or double. An amplitude is Complex, or Real where states stay real: then rotations
// and signs are all there is, of the sums only those of Y are not zero, and of an observable the real part of d
// matters.
//
// Compiled with -DQF_DOUBLE=0|1 -DQF_REAL=0|1 -DQF_TILE_QUBITS=t -DQF_REGISTER_QUBITS=r; no header is included.
#pragma once

#if QF_DOUBLE
typedef double Real;
typedef double2 Complex;
#else
typedef float Real;
typedef float2 Complex;
#endif
#if QF_REAL
typedef Real Amplitude;
constexpr bool IS_REAL = true;
#else
typedef Complex Amplitude;
constexpr bool IS_REAL = false;
#endif
typedef unsigned long long Mask;

constexpr int TILE_QUBITS = QF_TILE_QUBITS;
constexpr int REGISTER_QUBITS = QF_REGISTER_QUBITS;
constexpr int NUM_REGISTERS = 1 << REGISTER_QUBITS;
constexpr int THREAD_QUBITS = TILE_QUBITS - REGISTER_QUBITS;
constexpr int THREADS_PER_TILE = 1 << THREAD_QUBITS;
constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr double INVERSE_PI = 0.31830988618379067154;

enum LeafKind { LEAF_RX = 0, LEAF_RY = 1, LEAF_RZ = 2, LEAF_SU2 = 3, LEAF_RV = 4 };
enum SourceKind { SOURCE_TERM = 0, SOURCE_RUN_IN = 1, SOURCE_RUN_OUT = 2 };
enum ExtraKind { EXTRA_THREAD = 0, EXTRA_REGISTER = 1, EXTRA_TERM = 2 };

struct Leaf {  // one gate of a run: angle = coefficient * columns[column] + offset; output: its first gradient number
    double coefficient, offset;
    double quaternion[4];  // su2: a - i (b X + c Y + d Z)
    int kind, column, output, unused;
};

struct Run {  // gates of one qubit: Rz(phi) Ry(2 a) Rz(lambda)
    int first_leaf, end_leaf;
    int slot;                 // of its rotation and its angles
    int only_rx;              // all leaves are RX: lambda is pi/2 where it is not defined
    int sum_x, sum_y, sum_z;  // index in the totals of a pair, -1: zero
    int sum_z_after;          // Im<lam|Z|psi> behind the rotation
};

struct Term {  // exp(-i angle/2 g) of a diagonal g
    double coefficient, offset;
    int column, slot;
};

struct Item {  // adds coefficient * angle * g(p) to the argument of a table entry at tile index p
    double coefficient;
    unsigned care, value, sign;
    int source, slot, unused;
};

// A part of a piece that no table of threads or of registers alone can hold; masks over local indices.
//   EXTRA_THREAD: a factor where the index matches    EXTRA_REGISTER: the same for |1> of a register bit
//   EXTRA_TERM: factor^g for every amplitude
struct Extra {
    Mask care, value, sign;
    double coefficient;
    int source, slot, kind, bit;
};

struct Direct {  // sum over the tile of p g, for a g whose Walsh series is long; masks over local indices
    Mask care, value, sign;
};

// A piece of a phase: diagonal gates executed together. Its tables start at `table`:
//   [2^(t-r) factors by thread | r factors of |1> of each register bit | extras]
// Its gradients are sums of p = Im(conj(lam) psi) over the tile.
struct Piece {
    long long table;
    Mask signs[4];  // |1> of register bit b gets -1 where popcount(local index & signs[b]) is odd
    int arrangement;
    unsigned register_signs;  // bit j: sign of register j
    int first_thread_item, first_register_item, end_item;
    int first_extra, end_extra;
    int z_slot;                                 // sums of p (-1)^bit of every tile bit, then of p; -1: not wanted
    int walsh_slot, first_walsh, end_walsh;     // sums of p (-1)^popcount(index & mask) for a list of masks
    int direct_slot, first_direct, end_direct;  // sums of p g
};

struct Stage {  // [exchange] [piece] [rotations of some register bits]
    int arrangement, piece;
    int rotate, sum_x;  // masks of register bits; every rotated bit has its Y summed
    int y_slot, x_slot;
    int slot[4];  // of the rotation of each register bit
};

struct Slots {  // of rotations, terms and table entries: for all rows, and for each row
    long long shared_runs, varying_runs, shared_terms, varying_terms, shared_entries, varying_entries;
};

struct Output {  // totals[total] = sum over tiles of (-1)^popcount(tile & outside) partial[tile][slot]
    Mask outside;
    int slot, total;
};

struct Group {  // terms of an observable that flip the same bits: (O psi)[i] = sum of d[i] psi[i ^ flip]
    Mask flip;
    int first_term, end_term;
};

struct ObservableTerm {  // (re + i im) [(i & care) == value] (-1)^popcount(i & sign) in d[i]
    Mask care, value, sign;
    double re, im;
};

struct Window {  // address bit of each tile bit, and of each bit of the tile number
    unsigned char tile[16], outside[48];
};

// Ry turns (Z, X) of w, so that X before it is (cos Z_before - Z_after)/sin. Only where this sine is below about 1/8 is
// X summed. Plain comparisons: all kernels must decide alike. rotation: (tan(a/2), sin(a)), the sine is that of 2 a.
__device__ __forceinline__ bool is_x_summed(Complex rotation) {
    return rotation.y < Real(0.0627) || rotation.y > Real(0.998);
}

// Index of a slot for a row: the first num_shared slots are the same for all rows.
__device__ __forceinline__ long long place(long long slot, long long row, long long num_shared, long long num_varying) {
    return slot < num_shared ? slot : slot + row * num_varying;
}

__device__ __forceinline__ int generator(Mask care, Mask value, Mask sign, Mask i) {
    return (i & care) != value ? 0 : __popcll(i & sign) & 1 ? -1 : 1;
}

__device__ __forceinline__ Complex make_complex(Real re, Real im) {
    Complex z;
    z.x = re;
    z.y = im;
    return z;
}

__device__ __forceinline__ Complex multiply(Complex a, Complex b) {
    return make_complex(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

__device__ __forceinline__ Complex multiply_conjugate(Complex a, Complex b) {  // a conj(b)
    return make_complex(a.x * b.x + a.y * b.y, a.y * b.x - a.x * b.y);
}

// What amplitudes have in common: overloads for Complex and Real, whose imaginary part is 0.

__device__ __forceinline__ Real multiply(Real a, Real b) {
    return a * b;
}

__device__ __forceinline__ Real multiply_conjugate(Real a, Real b) {
    return a * b;
}

__device__ __forceinline__ void set(Complex& a, Real re, Real im) {
    a = make_complex(re, im);
}

__device__ __forceinline__ void set(Real& a, Real re, Real) {
    a = re;
}

// a += s b
__device__ __forceinline__ void add_multiple(Complex& a, Real s, Complex b) {
    a.x += s * b.x;
    a.y += s * b.y;
}

__device__ __forceinline__ void add_multiple(Real& a, Real s, Real b) {
    a += s * b;
}

__device__ __forceinline__ Real real_product(Complex a, Complex b) {
    return a.x * b.x + a.y * b.y;
}  // Re(conj(a) b)

__device__ __forceinline__ Real real_product(Real a, Real b) {
    return a * b;
}

// sum += Re(conj(a) b)
__device__ __forceinline__ void add_real_product(Real& sum, Complex a, Complex b) {
    sum += a.x * b.x;
    sum += a.y * b.y;
}

__device__ __forceinline__ void add_real_product(Real& sum, Real a, Real b) {
    sum += a * b;
}

// plus - minus += Im(conj(a) b)
__device__ __forceinline__ void add_imaginary_product(Real& plus, Real& minus, Complex a, Complex b) {
    plus += a.x * b.y;
    minus += a.y * b.x;
}

__device__ __forceinline__ void add_imaginary_product(Real&, Real&, Real, Real) {}

__device__ __forceinline__ Real imaginary_product(Complex a, Complex b) {  // Im(conj(a) b)
    return a.x * b.y - a.y * b.x;
}

__device__ __forceinline__ Real imaginary_product(Real, Real) {
    return 0;
}

__device__ __forceinline__ Complex times_i(Complex a) {
    return make_complex(-a.y, a.x);
}

__device__ __forceinline__ Real times_i(Real a) {
    return a;
}  // never asked for

// Change the sign if the lowest bit is set.
__device__ __forceinline__ float negate_if(float value, unsigned bit) {
    return __uint_as_float(__float_as_uint(value) ^ bit << 31);
}

__device__ __forceinline__ double negate_if(double value, unsigned bit) {
    return bit & 1 ? -value : value;
}

__device__ __forceinline__ Complex negate_if(Complex a, unsigned bit) {
    return make_complex(negate_if(a.x, bit), negate_if(a.y, bit));
}

// The inverse of a number of modulus 1 if the lowest bit is set.
__device__ __forceinline__ Complex invert_if(Complex a, unsigned bit) {
    return make_complex(a.x, negate_if(a.y, bit));
}

__device__ __forceinline__ Real invert_if(Real a, unsigned) {
    return a;
}

// Tile index of a register of a thread.
__device__ __forceinline__ int tile_index(int thread, int j, int arrangement) {
    const int low = thread & ((1 << arrangement) - 1);
    return low | j << arrangement | (thread >> arrangement) << (arrangement + REGISTER_QUBITS);
}

struct Quaternion {  // the matrix a - i (b X + c Y + d Z)
    double a, b, c, d;
};

// The matrix of a leaf; columns: those of its row.
__device__ __forceinline__ Quaternion leaf_quaternion(const Leaf& leaf, const double* columns) {
    if (leaf.kind == LEAF_SU2) return {leaf.quaternion[0], leaf.quaternion[1], leaf.quaternion[2], leaf.quaternion[3]};
    double sine, cosine;
    if (leaf.kind == LEAF_RV) {  // exp(-i/2 (x X + y Y + z Z))
        const double* v = columns + leaf.column;
        const double theta = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
        sincospi(theta * (INVERSE_PI / 2), &sine, &cosine);
        // sin(theta/2)/theta, by its series where the quotient loses digits
        const double s = theta < 1e-4 ? 0.5 - theta * theta / 48 : sine / theta;
        return {cosine, s * v[0], s * v[1], s * v[2]};
    }
    const double angle = leaf.column < 0 ? leaf.offset : leaf.coefficient * columns[leaf.column] + leaf.offset;
    sincospi(angle * (INVERSE_PI / 2), &sine, &cosine);
    return {cosine, leaf.kind == LEAF_RX ? sine : 0, leaf.kind == LEAF_RY ? sine : 0, leaf.kind == LEAF_RZ ? sine : 0};
}

// Sums x over the threads whose numbers agree modulo LANES, for thread numbers below LANES.
template <int LANES>
__device__ __forceinline__ double block_sums(double x) {
    __shared__ double sums[32 * LANES];
    for (int offset = 16; offset >= LANES; offset /= 2) x += __shfl_xor_sync(ALL_LANES, x, offset);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    __syncthreads();  // the sums of the previous call have been read
    if (lane < LANES) sums[warp * LANES + lane] = x;
    __syncthreads();
    if (threadIdx.x < LANES)
        for (int w = 1; w < blockDim.x / 32; ++w) x += sums[w * LANES + lane];
    return x;
}
