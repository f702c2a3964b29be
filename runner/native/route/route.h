// Routing: which experts a row goes to, and with which share. program/ops.py says what is computed.
//
// Scores are computed over the row in 16 virtual lanes, their sum in one fixed tree. Experts are
// compared by their keys (logits; with a bias score plus bias), the first of equal ones first. The
// shares of the chosen are added by ascending expert, in one chain.
#pragma once

#include "core/kernel.h"

namespace edge {

enum class Scoring : int32_t { softmax, softmax_of_chosen, sigmoid, softmax_of_near };

struct RouteArgs {
  Matrix logits;                   // [rows, experts]
  const float* bias = nullptr;     // [experts] or null
  const float* factors = nullptr;  // [experts] or null: of the shares, beside `scale`
  int32_t chosen = 0;              // at most kMostExperts
  Scoring scoring = Scoring::softmax;
  bool normalize = false;
  float eps = 0.0f, scale = 1.0f;
  float threshold = 0.0f;  // of softmax_of_near
  Matrix shares;           // [rows, experts]; not `logits`
};

constexpr int32_t kMostExperts = 1024;

struct RouteKernels {
  // Workers split the rows.
  void (*route)(const RouteArgs& args, Worker worker);
};

extern const RouteKernels route_scalar;
extern const RouteKernels route_avx2;
extern const RouteKernels route_avx512;
extern const RouteKernels route_neon;

}  // namespace edge
