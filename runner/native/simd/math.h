// Elementary functions over virtual lanes: one polynomial and one order of operations for every
// instruction set. Templates have internal linkage, so that files built for different instruction
// sets never share code.
#pragma once

namespace edge {
namespace {

// 1.5 * 2^23: adding it rounds a float32 to an integer (ties to even) that its low mantissa bits
// hold.
constexpr float kIntegerBias = 12582912.0f;

// e^x: at most 1.1 ulp off; 0 at -inf, +inf above 88.72, NaN stays NaN, subnormal results are exact
// to one rounding. x = n log 2 + r, |r| <= log(2) / 2, e^r by a minimax polynomial of our own fit.
template <class V>
inline V exponential(V x) {
  x = max(V::broadcast(-104.0f), x);  // NaN: the second operand
  x = min(V::broadcast(89.0f), x);
  V biased = fma(x, V::broadcast(0x1.715476p+0f), V::broadcast(kIntegerBias));
  V n = biased - V::broadcast(kIntegerBias);
  V r = fma(n, V::broadcast(-0x1.62e400p-1f), x);  // log 2 in two parts; n times the first is exact
  r = fma(n, V::broadcast(-0x1.7f7d1cp-20f), r);
  V p = V::broadcast(0.001381409470923245f);
  p = fma(p, r, V::broadcast(0.0083689596503973f));
  p = fma(p, r, V::broadcast(0.04166841134428978f));
  p = fma(p, r, V::broadcast(0.166665181517601f));
  p = fma(p, r, V::broadcast(0.4999999403953552f));
  p = fma(p, r, V::broadcast(1.0f));
  p = fma(p, r, V::broadcast(1.0f));
  return scale_by_power(p, biased);
}

// Near zero an odd polynomial of our own fit, elsewhere 1 - 2 / (e^2|x| + 1).
template <class V>
inline V hyperbolic_tangent(V x) {
  V one = V::broadcast(1.0f);
  V size = abs(x);
  V large = one - V::broadcast(2.0f) / (exponential(size + size) + one);
  large = select(less(x, V::broadcast(0.0f)), -large, large);
  V u = x * x;
  V p = V::broadcast(-0.005704986862838268f);
  p = fma(p, u, V::broadcast(0.0206390880048275f));
  p = fma(p, u, V::broadcast(-0.05373971536755562f));
  p = fma(p, u, V::broadcast(0.13331441581249237f));
  p = fma(p, u, V::broadcast(-0.3333328068256378f));
  V small = fma(p * u, x, x);
  return select(less(size, V::broadcast(0.625f)), small, large);
}

template <class V>
inline V silu_of(V a) {
  return a / (V::broadcast(1.0f) + exponential(-a));
}

// 0.5 x (1 + tanh(u)) with u = sqrt(2 / pi) (x + 0.044715 x^3), written as x / (1 + e^-2u), which
// is the same function without the cancellation.
template <class V>
inline V gelu_of(V a) {
  V cubic = fma(a * a * a, V::broadcast(0.044715f), a);
  return a / (V::broadcast(1.0f) + exponential(cubic * V::broadcast(-1.5957691216057308f)));
}

}  // namespace
}  // namespace edge
