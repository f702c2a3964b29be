#include "core/dispatch.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "core/error.h"
#include "core/platform.h"

#if defined(EDGE_HAVE_AVX2)
#include <cpuid.h>
#endif

namespace edge {

namespace {

const Kernels scalar{"scalar",       linear_scalar,      attention_scalar, conv_scalar,
                     fold_scalar,    hadamard_scalar,    norm_scalar,      rope_scalar,
                     route_scalar,   elementwise_scalar, sampler_scalar,   ceiling_scalar,
                     quantize_scalar};

bool always() { return true; }

#if defined(EDGE_HAVE_AVX2)

const Kernels avx2{"avx2",        linear_avx2,  attention_avx2, conv_avx2,  fold_avx2,
                   hadamard_avx2, norm_avx2,    rope_avx2,      route_avx2, elementwise_avx2,
                   sampler_avx2,  ceiling_avx2, quantize_avx2};

const Kernels avxvnni{"avxvnni",     linear_avxvnni,  attention_avx2, conv_avx2,  fold_avx2,
                      hadamard_avx2, norm_avx2,       rope_avx2,      route_avx2, elementwise_avx2,
                      sampler_avx2,  ceiling_avxvnni, quantize_avx2};

const Kernels avx512vnni{"avx512vnni",   linear_avx512vnni,  attention_avx512, conv_avx512,
                         fold_avx512,    hadamard_avx512,    norm_avx512,      rope_avx512,
                         route_avx512,   elementwise_avx512, sampler_avx512,   ceiling_avx512vnni,
                         quantize_avx512};

// Whether the operating system keeps all these parts of the registers.
bool keeps_state(unsigned parts) {
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & parts) == parts;
}

// AVX2, FMA and F16C, and an operating system that keeps the wide registers.
bool has_avx2() {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return false;
  constexpr unsigned kFma = 1u << 12, kOsXsave = 1u << 27, kAvx = 1u << 28, kF16c = 1u << 29;
  constexpr unsigned kNeeded = kFma | kOsXsave | kAvx | kF16c;
  if ((c & kNeeded) != kNeeded) return false;
  if (!keeps_state(0x6)) return false;  // SSE and AVX
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 5)) != 0;
}

bool has_avxvnni() {
  unsigned a, b, c, d;
  if (!has_avx2() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || a < 1) return false;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 4)) != 0;
}

bool has_avx512vnni() {
  unsigned a, b, c, d;
  if (!has_avx2() || !keeps_state(0xe6)) return false;  // and opmasks, upper halves, 16 more
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kF = 1u << 16, kDq = 1u << 17, kBw = 1u << 30, kVl = 1u << 31;
  constexpr unsigned kNeeded = kF | kDq | kBw | kVl, kVnni = 1u << 11;
  return (b & kNeeded) == kNeeded && (c & kVnni) != 0;
}

#endif

#if defined(EDGE_HAVE_NEON)

constexpr Kernels neon_with(const char* isa, const LinearKernels& linear,
                            const CeilingKernels& ceiling) {
  return {isa,           linear,    attention_neon, conv_neon,  fold_neon,
          hadamard_neon, norm_neon, rope_neon,      route_neon, elementwise_neon,
          sampler_neon,  ceiling,   quantize_neon};
}

const Kernels neon = neon_with("neon", linear_neon, ceiling_neon);
const Kernels neon_dotprod = neon_with("neon_dotprod", linear_neon_dotprod, ceiling_neon_dotprod);
const Kernels neon_i8mm = neon_with("neon_i8mm", linear_neon_i8mm, ceiling_neon_i8mm);

bool has_dotprod() { return arm_features().dot_product; }
bool has_i8mm() { return arm_features().dot_product && arm_features().int8_matrix; }

#endif

struct Candidate {
  const Kernels& kernels;
  bool (*supported)();
};

// Best first.
const Candidate candidates[] = {
#if defined(EDGE_HAVE_AVX2)
    {avx512vnni, has_avx512vnni},
    {avxvnni, has_avxvnni},
    {avx2, has_avx2},
#endif
#if defined(EDGE_HAVE_NEON)
    {neon_i8mm, has_i8mm},
    {neon_dotprod, has_dotprod},
    {neon, always},
#endif
    {scalar, always},
};

}  // namespace

const Kernels& select_kernels() {
  const char* wanted = std::getenv("EDGE_LLM_ISA");
  std::string known;
  for (const Candidate& candidate : candidates) {
    const char* isa = candidate.kernels.isa;
    if (wanted == nullptr || *wanted == '\0') {
      if (candidate.supported()) return candidate.kernels;
    } else if (std::strcmp(wanted, isa) == 0) {
      if (candidate.supported()) return candidate.kernels;
      fail(EDGE_UNSUPPORTED, "EDGE_LLM_ISA is '%s', which this processor does not support", wanted);
    }
    known += known.empty() ? isa : std::string(", ") + isa;
  }
  fail(EDGE_UNSUPPORTED, "EDGE_LLM_ISA is '%.64s', expected one of: %s", wanted, known.c_str());
}

}  // namespace edge
