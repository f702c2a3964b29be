// Linux's files about processors and control groups.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace edge {

struct Cores {
  int32_t count = 0;
  bool sure = true;  // false: for all that the files say, two CPUs may share a core
};

// Physical cores among these logical CPUs: hyper-threads count once, and where cores differ in
// strength only the strong ones count, since a step is as slow as its slowest worker. Files are
// read under `root`, which is "" but in tests.
Cores strong_cores(const std::string& root, const std::vector<int32_t>& cpus);

// Cores' worth of time, rounded up, that the control groups of this process grant, version 1 or 2;
// 0: no limit.
int32_t quota_cores(const std::string& root);

}  // namespace edge
