// The normalized Hadamard transform of each row, of 2^k or 28 * 2^k columns, a multiple of 64:
// y = (H x) / sqrt(size). H is Sylvester's matrix of 2^k, H[i][j] = -1 to the bits that i and j
// have in common, or the Kronecker product of a matrix of order 28 with that: R. E. A. C. Paley,
// "On orthogonal matrices" (1933), for the field of 13, as SpinQuant's checkpoints have it. y may
// be x.
//
// Every sum runs in one order, elementwise: of each 16 columns in a row 16 terms, ascending; then
// butterflies of columns 16, 32, ... apart; then 28 terms, ascending; then the product with
// 1 / sqrt(size), rounded to float32 from double.
#pragma once

#include "core/kernel.h"

namespace edge {

struct HadamardKernels {
  // Workers split the rows.
  void (*hadamard)(Matrix x, Matrix y, Worker worker);
};

extern const HadamardKernels hadamard_scalar;
extern const HadamardKernels hadamard_avx2;
extern const HadamardKernels hadamard_avx512;
extern const HadamardKernels hadamard_neon;

}  // namespace edge
