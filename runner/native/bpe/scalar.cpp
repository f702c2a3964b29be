#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>

#include "bpe/bpe.h"
#include "core/error.h"

namespace edge {
namespace {

uint64_t mix(uint64_t hash) {
  hash ^= hash >> 32;
  hash *= 0x9E3779B97F4A7C15u;
  return hash ^ hash >> 29;
}

// Where the search for a key begins. Tables have EDGE_BPE_PROBES slots more than they hash to, so
// that a search stays inside.
uint64_t home(uint64_t hash, uint32_t rows) {
  return (hash >> 32) * (rows - EDGE_BPE_PROBES) >> 32;
}

struct Merge {
  int32_t left, right, rank, result;
};

// The merge of two neighbours; null: there is none.
const Merge* find_merge(const edge_bpe& tables, int32_t left, int32_t right) {
  const uint64_t key =
      static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  const auto* slot =
      reinterpret_cast<const Merge*>(tables.merges) + home(mix(mix(key)), tables.merge_rows);
  for (int probe = 0; probe < EDGE_BPE_PROBES && slot->left >= 0; ++probe, ++slot) {
    if (slot->left == left && slot->right == right) return slot;
  }
  return nullptr;
}

struct Text {
  const uint8_t* data;
  int32_t size;
};

Text text_of(const edge_bpe& tables, int32_t id) {
  const int32_t begin = tables.offsets[id];
  return {tables.texts + begin, tables.offsets[id + 1] - begin};
}

struct Symbol {
  int32_t id;
  int32_t previous, next;  // -1: none
  int32_t end;             // one past its last unit
};

struct Candidate {
  uint64_t order;  // rank, then place: the lowest goes first
  int32_t left, right, result;
  bool operator>(const Candidate& other) const { return order > other.order; }
  int32_t place() const { return static_cast<int32_t>(order & 0xFFFFFFFFu); }
};

class Merger {
 public:
  explicit Merger(const edge_bpe& tables) : tables_(tables) {}

  // Merges one word, which begins at unit `first`, and appends its tokens.
  void merge(const uint32_t* units, int32_t first, int32_t last, int32_t*& ids, int32_t*& ends) {
    const int32_t count = last - first;
    for (int32_t i = first; i < last; ++i) {
      if (units[i] >= static_cast<uint32_t>(tables_.unit_count)) {
        fail(EDGE_INVALID, "unit %u of a text, the tables have %d", units[i], tables_.unit_count);
      }
    }
    const int32_t whole =
        count > 1 && tables_.words != nullptr ? find_word(units, first, last) : -1;
    if (whole >= 0) {
      *ids++ = whole;
      *ends++ = last;
      return;
    }
    symbols_.resize(static_cast<size_t>(count));
    for (int32_t i = 0; i < count; ++i) {
      symbols_[i] = {tables_.units[units[first + i]], i - 1, i + 1 < count ? i + 1 : -1,
                     first + i + 1};
    }
    if (count > 1) join();
    for (int32_t i = 0; i >= 0; i = symbols_[i].next) {
      *ids++ = symbols_[i].id;
      *ends++ = symbols_[i].end;
    }
  }

 private:
  // Joins the neighbours of lowest rank, the leftmost of these first, as long as there are any.
  void join() {
    queue_.clear();
    for (int32_t i = 0; symbols_[i].next >= 0; ++i) add(i);
    std::make_heap(queue_.begin(), queue_.end(), std::greater<>());
    while (!queue_.empty()) {
      std::pop_heap(queue_.begin(), queue_.end(), std::greater<>());
      const Candidate best = queue_.back();
      queue_.pop_back();
      Symbol& left = symbols_[best.place()];
      if (left.id != best.left || left.next < 0) continue;
      Symbol& right = symbols_[left.next];
      if (right.id != best.right) continue;
      left.id = best.result;
      left.end = right.end;
      left.next = right.next;
      right.id = -1;
      if (left.next >= 0) {
        symbols_[left.next].previous = best.place();
        push(best.place());
      }
      if (left.previous >= 0) push(left.previous);
    }
  }

  void push(int32_t place) {
    if (add(place)) std::push_heap(queue_.begin(), queue_.end(), std::greater<>());
  }

  // Whether the symbol at `place` and the one after it can be joined.
  bool add(int32_t place) {
    const Symbol& left = symbols_[place];
    const int32_t right = symbols_[left.next].id;
    const Merge* merge = find_merge(tables_, left.id, right);
    if (merge == nullptr) return false;
    const uint64_t order = static_cast<uint64_t>(static_cast<uint32_t>(merge->rank)) << 32 |
                           static_cast<uint32_t>(place);
    queue_.push_back({order, left.id, right, merge->result});
    return true;
  }

  // The id of the token that is spelled as these units; -1: none.
  int32_t find_word(const uint32_t* units, int32_t first, int32_t last) {
    word_.clear();
    uint64_t hash = 0xCBF29CE484222325u;  // FNV-1a
    for (int32_t i = first; i < last; ++i) {
      const Text text = text_of(tables_, tables_.units[units[i]]);
      word_.insert(word_.end(), text.data, text.data + text.size);
    }
    for (const uint8_t byte : word_) hash = (hash ^ byte) * 0x100000001B3u;
    const int32_t* slot = tables_.words + home(mix(hash), tables_.word_rows);
    for (int probe = 0; probe < EDGE_BPE_PROBES && *slot >= 0; ++probe, ++slot) {
      const Text text = text_of(tables_, *slot);
      if (static_cast<size_t>(text.size) == word_.size() &&
          std::memcmp(text.data, word_.data(), word_.size()) == 0) {
        return *slot;
      }
    }
    return -1;
  }

  const edge_bpe& tables_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> queue_;
  std::vector<uint8_t> word_;
};

}  // namespace

uint64_t merge_words(const edge_bpe& tables, const uint32_t* units, const uint32_t* words,
                     uint64_t count, int32_t* ids, int32_t* ends) {
  if (count > INT32_MAX) fail(EDGE_INVALID, "a text of more than 2^31 units");
  const int32_t* begin = ids;
  Merger merger(tables);
  const auto total = static_cast<int32_t>(count);
  for (int32_t first = 0, last; first < total; first = last) {
    for (last = first + 1; last < total && words[last] == words[first];) ++last;
    merger.merge(units, first, last, ids, ends);
  }
  return static_cast<uint64_t>(ids - begin);
}

}  // namespace edge
