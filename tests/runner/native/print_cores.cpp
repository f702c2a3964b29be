// Prints strong_cores, whether they are sure, and quota_cores for the files under argv[1] and the CPUs that follow.
#include <cstdio>
#include <cstdlib>

#include "core/topology.h"

int main(int count, char** arguments) {
  std::vector<int32_t> cpus;
  for (int i = 2; i < count; ++i) cpus.push_back(std::atoi(arguments[i]));
  const edge::Cores cores = edge::strong_cores(arguments[1], cpus);
  std::printf("%d %d %d\n", cores.count, cores.sure, edge::quota_cores(arguments[1]));
}
