#include "core/topology.h"

#include <algorithm>
#include <cstdio>
#include <set>

namespace edge {

namespace {

// The lines of a small file; none if there is no such file.
std::vector<std::string> read_lines(const std::string& path) {
  std::vector<std::string> lines;
  if (std::FILE* file = std::fopen(path.c_str(), "re")) {
    char buffer[1024];
    while (std::fgets(buffer, sizeof buffer, file) != nullptr) {
      lines.emplace_back(buffer);
      while (!lines.back().empty() && lines.back().back() == '\n') lines.back().pop_back();
    }
    std::fclose(file);
  }
  return lines;
}

std::string read_line(const std::string& path) {
  const std::vector<std::string> lines = read_lines(path);
  return lines.empty() ? "" : lines[0];
}

int64_t read_number(const std::string& path) {
  long long number = 0;
  return std::sscanf(read_line(path).c_str(), "%lld", &number) == 1 ? number : 0;
}

// Whether a list like "0-3,8" holds `cpu`.
bool holds(const std::string& list, int32_t cpu) {
  for (size_t at = 0; at < list.size();) {
    int first = 0, last = 0;
    const int found = std::sscanf(list.c_str() + at, "%d-%d", &first, &last);
    if (found >= 1 && cpu >= first && cpu <= (found == 2 ? last : first)) return true;
    const size_t comma = list.find(',', at);
    if (comma == std::string::npos) break;
    at = comma + 1;
  }
  return false;
}

int32_t cores_of(int64_t quota, int64_t period) {
  return quota <= 0 || period <= 0 ? 0 : static_cast<int32_t>((quota + period - 1) / period);
}

// What the group at `folder` grants itself; 0: no limit.
int32_t own_quota(const std::string& folder) {
  long long quota = 0, period = 0;
  if (std::sscanf(read_line(folder + "/cpu.max").c_str(), "%lld %lld", &quota, &period) == 2) {
    return cores_of(quota, period);
  }
  return cores_of(read_number(folder + "/cpu.cfs_quota_us"),
                  read_number(folder + "/cpu.cfs_period_us"));
}

// The tightest limit from the group `path` up to the root of its hierarchy.
int32_t tightest(const std::string& hierarchy, std::string path) {
  int32_t cores = 0;
  for (;;) {
    if (path == "/") path.clear();
    const int32_t own = own_quota(hierarchy + path);
    if (own > 0) cores = cores == 0 ? own : std::min(cores, own);
    if (path.empty()) return cores;
    path.erase(path.find_last_of('/'));
  }
}

}  // namespace

Cores strong_cores(const std::string& root, const std::vector<int32_t>& cpus) {
  const std::string devices = root + "/sys/devices/";
  const std::string weak = read_line(devices + "cpu_atom/cpus");  // of Intel's hybrid processors
  std::vector<int64_t> capacity(cpus.size());                     // of Arm's; 0: not known
  int64_t highest = 0;
  for (size_t i = 0; i < cpus.size(); ++i) {
    capacity[i] =
        read_number(devices + "system/cpu/cpu" + std::to_string(cpus[i]) + "/cpu_capacity");
    highest = std::max(highest, capacity[i]);
  }
  std::set<std::string> strong, all;
  Cores cores;
  for (size_t i = 0; i < cpus.size(); ++i) {
    const std::string number = std::to_string(cpus[i]);
    const std::string topology = devices + "system/cpu/cpu" + number + "/topology/";
    const std::string core = read_line(topology + "core_id");
    // Without topology (some containers) every logical CPU counts.
    cores.sure = cores.sure && !core.empty();
    const std::string name =
        core.empty() ? number : read_line(topology + "physical_package_id") + "." + core;
    all.insert(name);
    if (2 * capacity[i] >= highest && !holds(weak, cpus[i])) strong.insert(name);
  }
  cores.count = static_cast<int32_t>(strong.empty() ? all.size() : strong.size());
  return cores;
}

int32_t quota_cores(const std::string& root) {
  const std::string groups = root + "/sys/fs/cgroup";
  int32_t cores = tightest(groups, "");  // where a container sees its own group as the root
  for (const std::string& line : read_lines(root + "/proc/self/cgroup")) {
    // number:controllers:path; version 2 has no controllers here
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (path.empty() || path[0] != '/') continue;
    if (!controllers.empty() && ("," + controllers + ",").find(",cpu,") == std::string::npos) {
      continue;
    }
    const std::string hierarchy = controllers.empty() ? groups : groups + "/" + controllers;
    const int32_t own = tightest(hierarchy, path);
    if (own > 0) cores = cores == 0 ? own : std::min(cores, own);
  }
  return cores;
}

}  // namespace edge
