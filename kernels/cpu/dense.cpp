// SPDX-License-Identifier: Apache-2.0
//
// The panels of dense gates.
#include "cpu/dense.hpp"

#include <algorithm>
#include <cmath>

#include "shared/tuning.h"

namespace qf {
namespace {

int count_bits(index_t bits) {
    int count = 0;
    for (; bits; bits &= bits - 1) ++count;
    return count;
}

}  // namespace

template <class T>
DenseForm<T>::DenseForm(const DenseGate& gate, int lane_bits) : gate_(gate), num_targets_(count_bits(gate.targets)) {
    offset_.assign(1, 0);
    for (index_t left = gate.targets; left; left &= left - 1)
        for (std::size_t m = 0, half = offset_.size(); m < half; ++m)
            offset_.push_back(offset_[m] | (left & (~left + 1)));
    const std::size_t size = offset_.size(), width = std::size_t(1) << lane_bits;
    const std::size_t rows = std::max(size, width);
    for (int adjoint = 0; adjoint < 2; ++adjoint) {
        Buffer<T> panels(2 * rows * size);
        for (std::size_t row = 0; row < rows; ++row)
            for (std::size_t column = 0; column < size; ++column) {
                T* const out = panels.data() + row / width * 2 * width * size + column * 2 * width + row % width;
                std::complex<double> entry = 0;
                if (row < size)
                    entry = adjoint ? std::conj(gate.matrix[column * size + row]) : gate.matrix[row * size + column];
                out[0] = static_cast<T>(entry.real());
                out[width] = static_cast<T>(entry.imag());
            }
        panels_[adjoint] = std::move(panels);
    }
}

template <class T>
DenseProduct<T> DenseForm<T>::on_state(int bits, bool adjoint) const {
    const index_t all = ~index_t(0) >> (64 - bits);
    return {num_targets_, 0, panels_[adjoint].data(), offset_.data(), all & ~(gate_.targets | gate_.care), gate_.value};
}

template <class T>
DenseProduct<T> DenseForm<T>::on_pack(int bits, int lane_bits, int parts, bool adjoint) const {
    DenseProduct<T> product = on_state(bits, adjoint);
    product.shift = lane_bits + parts - 1;
    product.free = product.free << product.shift | ((index_t(1) << lane_bits) - 1);
    product.value <<= product.shift;
    return product;
}

template <class T>
std::size_t DenseForm<T>::bytes(const DenseGate& gate) {
    // The panels are counted for the widest vectors, so that predictions do not depend on the CPU.
    const std::size_t size = std::size_t(1) << count_bits(gate.targets);
    const std::size_t rows = std::max(size, std::size_t(WIDEST_VECTOR_BYTES) / sizeof(T));
    return sizeof(DenseForm<T>) + size * sizeof(index_t) + 4 * rows * size * sizeof(T);
}

template <class T>
std::vector<DenseForm<T>> dense_forms(const PlanData& plan, int lane_bits) {
    std::vector<DenseForm<T>> forms;
    for (const auto& gate : plan.dense) forms.emplace_back(gate, lane_bits);
    return forms;
}

double dense_work(const PlanData& plan) {
    double work = 0;
    for (const auto& gate : plan.dense)  // a rotation takes 4 operations, a complex multiply-add 8
        work += std::ldexp(2.0, count_bits(gate.targets) - count_bits(gate.care));
    return work;
}

template class DenseForm<float>;
template class DenseForm<double>;
template std::vector<DenseForm<float>> dense_forms(const PlanData&, int);
template std::vector<DenseForm<double>> dense_forms(const PlanData&, int);

}  // namespace qf
