// Best-fit decreasing: sequences are put into bins (rows) of one capacity, longest first, each into
// the bin that it fills most. This is what fixed-length rows are packed with.

#pragma once

#include <cstddef>
#include <cstdint>

namespace babyvlm {

// Tables are indexed by free space, so their size is the capacity; this bounds them to 4 MiB.
inline constexpr std::int64_t kMaxCapacity = std::int64_t{1} << 20;

// Writes the bin of each of `count` sequences to `bin_of` and returns the number of bins.
//
// Ties, so that a result can be repeated: sequences of one length are placed in index order; of
// several bins that are equally full the one that was added to last is taken; bins are numbered in
// the order in which they are opened.
//
// Throws std::invalid_argument for a capacity outside [1, kMaxCapacity], for a length outside
// [1, capacity] (naming the first such index), and for more sequences than an int32 can number.
// `lengths` is read twice and must not change in between.
template <typename Integer>
std::int32_t pack_best_fit(const Integer* lengths, std::size_t count, std::int64_t capacity,
                           std::int32_t* bin_of);

}  // namespace babyvlm
