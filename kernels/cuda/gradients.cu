// SPDX-License-Identifier: Apache-2.0
//
// Sums of the backward sweep over each tile -> gradients of the columns. All computation is in double precision.
//
// Equation:
//   sum_tiles      totals[u][output.total] = sum over tiles of
//                  (-1)^popcount(tile & outside) partial[u][tile][output.partial]
//   sum_chunks     values[k] = sum of partial[k][...]
//   run_gradients  w = Im <lam|(X, Y, Z)|psi> between Rz(lambda) and Ry of a run is turned as a 3-vector to the place
//                  after each gate of the run; the gradient of a gate about an axis is the component of w on this axis
//   combine        gradient of a column = sum of weight * (leaf gradient or total) over the leaves and terms of this
//                  column, for each unit, or added over units_per_sum units at a time
// Layout: a unit is a (row, observable) pair, or a row if cotangents are given. partial is
// [units][num_tiles][num_partials] for sum_tiles and [count][num_chunks] for sum_chunks; totals [units][num_totals];
// leaf_gradients [units][num_leaf_outputs], with respect to the angle of a leaf or to the three components of a
// rotation vector; columns as `place` says. In combine, chosen [num_chosen] lists columns; column c has the entries
// column_begin[c] .. column_begin[c + 1] - 1 of index and weight; gradient k of sum s is
// gradients[s * sum_stride + k * chosen_stride].
// Launch: 1-D. sum_tiles and sum_chunks take blocks of 32 .. 1024 threads, a multiple of 32, and grids of any size; the
// best grids have units * ceil(num_outputs / 8) and count blocks. run_gradients takes one thread for each (unit, run),
// combine one thread for each (sum, chosen column); both take blocks of any size.
// Work: one addition for each partial sum; about 20 multiply-adds, one sine and one cosine for each gate of a run; one
// multiply-add for each entry of index and unit.
// Traffic: partial is read once, and no amplitude is read. If outputs are sorted by partial, 8 neighbouring outputs in
// float are one memory sector of 32 bytes.
// Determinism: the sum over tiles or chunks is a fixed tree that depends on their number and on the block size only.
// combine adds units in order.
// Source: kernels/README.md, section Gradients.
#include "cuda/amplitude.cuh"
#include "cuda/records.cuh"
#include "cuda/threads.cuh"

extern "C" __global__ void sum_tiles(const Real* partial, int units, int num_tiles, int num_partials,
                                     const Output* outputs, int num_outputs, double* totals, int num_totals) {
    const int lane = threadIdx.x % OUTPUT_LANES, step = blockDim.x / OUTPUT_LANES;
    const int groups = (num_outputs + OUTPUT_LANES - 1) / OUTPUT_LANES;
    for (long long task = blockIdx.x; task < static_cast<long long>(units) * groups; task += gridDim.x) {
        const long long unit = task / groups;
        const int o = static_cast<int>(task % groups) * OUTPUT_LANES + lane;
        // Threads beyond the last output repeat it: all of them meet at the barriers of block_sums.
        const Output output = outputs[o < num_outputs ? o : num_outputs - 1];
        const Real* of_unit = partial + unit * num_tiles * num_partials + output.partial;
        double sum = 0;
        for (int tile = threadIdx.x / OUTPUT_LANES; tile < num_tiles; tile += step) {
            const double x = of_unit[static_cast<long long>(tile) * num_partials];
            sum += parity(tile & output.outside) ? -x : x;
        }
        sum = block_sums<OUTPUT_LANES>(sum);
        if (threadIdx.x < OUTPUT_LANES && o < num_outputs) totals[unit * num_totals + output.total] = sum;
    }
}

extern "C" __global__ void sum_chunks(const double* partial, int count, int num_chunks, double* values) {
    for (long long k = blockIdx.x; k < count; k += gridDim.x) {
        double sum = 0;
        for (int chunk = threadIdx.x; chunk < num_chunks; chunk += blockDim.x) sum += partial[k * num_chunks + chunk];
        sum = block_sums<1>(sum);
        if (threadIdx.x == 0) values[k] = sum;
    }
}

extern "C" __global__ void run_gradients(const double* totals, int num_totals, const double* columns,
                                         const int* row_of_unit, int units, const Leaf* leaves, const Run* runs,
                                         int num_runs, const Slots* slots, const double2* run_angles,
                                         const Rotation* rotations, double* leaf_gradients, int num_leaf_outputs) {
    const long long entry = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (entry >= static_cast<long long>(units) * num_runs) return;
    const long long unit = entry / num_runs, row = row_of_unit[unit];
    const Run& run = runs[entry % num_runs];
    const Columns values(columns, *slots, row);
    const double* sums = totals + unit * num_totals;
    const long long slot = place(run.slot, row, slots->shared_runs, slots->varying_runs);
    const double y = run.sum_y < 0 ? 0 : sums[run.sum_y], z = run.sum_z < 0 ? 0 : sums[run.sum_z];
    double x = 0;
    if (run.sum_x >= 0 && is_x_summed(rotations[slot].shears)) {
        x = sums[run.sum_x];
    } else if (run.sum_x >= 0) {
        const double h = rotations[slot].shears.x, s = 2 * h / (1 + h * h), c = (1 - h * h) / (1 + h * h);
        x = ((1 - 2 * s * s) * z - sums[run.sum_z_after]) / (2 * s * c);
    }

    // Turn w back through Rz(lambda) to the input of the run, then forward through the gates.
    double sine, cosine;
    const double lambda = run_angles[slot].x;
    sincospi(lambda * INVERSE_PI, &sine, &cosine);
    Vector3 w{cosine * x + sine * y, cosine * y - sine * x, z};
    for (int i = run.first_leaf; i < run.end_leaf; ++i) {
        const Leaf& leaf = leaves[i];
        const Quaternion q = leaf_quaternion(leaf, values);
        w = turn(q, w);
        if (leaf.output < 0) continue;
        double* gradient = leaf_gradients + unit * num_leaf_outputs + leaf.output;
        if (leaf.kind == LEAF_RV) {
            const Vector3 v = vector_of(leaf, values);
            const double t = sqrt(dot(v, v));
            sincospi(t * INVERSE_PI, &sine, &cosine);
            const Vector3 g = rotation_vector_gradient(v, t, sine, cosine, w);
            gradient[0] = g.x;
            gradient[1] = g.y;
            gradient[2] = g.z;
        } else {
            gradient[0] = leaf.kind == LEAF_RX ? w.x : leaf.kind == LEAF_RY ? w.y : w.z;
        }
    }
}

extern "C" __global__ void combine(const int* column_begin, const int* index, const double* weight,
                                   const double* leaf_gradients, int num_leaf_outputs, const double* totals,
                                   int num_totals, const int* chosen, int num_chosen, int units, int units_per_sum,
                                   int sum_stride, int chosen_stride, double* gradients) {
    const long long entry = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const long long num_sums = (static_cast<long long>(units) + units_per_sum - 1) / units_per_sum;
    if (entry >= num_sums * num_chosen) return;
    const long long s = entry / num_chosen, k = entry % num_chosen, first = s * units_per_sum;
    const int column = chosen[k];
    double sum = 0;
    for (long long unit = first; unit < first + units_per_sum && unit < units; ++unit) {
        const double *of_leaves = leaf_gradients + unit * num_leaf_outputs, *of_sums = totals + unit * num_totals;
        for (int e = column_begin[column]; e < column_begin[column + 1]; ++e)
            sum +=
                weight[e] * (index[e] < num_leaf_outputs ? of_leaves[index[e]] : of_sums[index[e] - num_leaf_outputs]);
    }
    gradients[s * sum_stride + k * chosen_stride] = sum;
}
