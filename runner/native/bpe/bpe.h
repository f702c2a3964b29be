// Byte-pair merging with tables that are read where they lie in the program file; the tokenizer's
// library has cut the text before. docs/program-format.md has the tables,
// tokenizers/tables/build.py makes them, tokenizers/tables/merger.py has checked them.
#pragma once

#include "edge_llm.h"

namespace edge {

// Merges each word: a run of equal `words`, which is units, ids of the skeleton. Writes the ids of
// tokens and, for each, one past its last unit; returns how many tokens there are. A word of n
// units takes O(n log n) time.
uint64_t merge_words(const edge_bpe& tables, const uint32_t* units, const uint32_t* words,
                     uint64_t count, int32_t* ids, int32_t* ends);

}  // namespace edge
