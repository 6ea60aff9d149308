#include "packing.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace babyvlm {
namespace {

// The open bins by free space: one stack of bins for each amount, and a bitmap of the amounts that
// have a bin, 64 to a word, so that the best fit is found without looking at any bin.
class OpenBins {
   public:
    static constexpr std::int32_t kNone = -1;

    explicit OpenBins(std::int32_t capacity)
        : top_(static_cast<std::size_t>(capacity) + 1, kNone),
          present_(static_cast<std::size_t>(capacity) / 64 + 1, 0) {}

    // The smallest free space of at least `length` that some bin has, or kNone.
    std::int32_t best_fit(std::int32_t length) const {
        std::size_t word = static_cast<std::size_t>(length) / 64;
        std::uint64_t bits = present_[word] & (~std::uint64_t{0} << (length % 64));
        while (bits == 0) {
            if (++word == present_.size()) return kNone;
            bits = present_[word];
        }
        return static_cast<std::int32_t>(word * 64) + std::countr_zero(bits);
    }

    std::int32_t open() {
        below_.push_back(kNone);
        return static_cast<std::int32_t>(below_.size()) - 1;
    }

    void push(std::int32_t bin, std::int32_t free) {
        below_[bin] = top_[free];
        top_[free] = bin;
        present_[free / 64] |= std::uint64_t{1} << (free % 64);
    }

    std::int32_t pop(std::int32_t free) {
        const std::int32_t bin = top_[free];
        top_[free] = below_[bin];
        if (top_[free] == kNone) present_[free / 64] &= ~(std::uint64_t{1} << (free % 64));
        return bin;
    }

    std::int32_t count() const { return static_cast<std::int32_t>(below_.size()); }

   private:
    std::vector<std::int32_t> top_;       // [capacity + 1] by free space: the bin used last
    std::vector<std::int32_t> below_;     // [bins] the next bin in the same stack
    std::vector<std::uint64_t> present_;  // bit f: some bin has free space f
};

}  // namespace

template <typename Integer>
std::int32_t pack_best_fit(const Integer* lengths, std::size_t count, std::int64_t capacity,
                           std::int32_t* bin_of) {
    if (capacity < 1 || capacity > kMaxCapacity) {
        throw std::invalid_argument("capacity is " + std::to_string(capacity) +
                                    "; accepted: 1 to " + std::to_string(kMaxCapacity));
    }
    if (count > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
        throw std::invalid_argument("there are " + std::to_string(count) +
                                    " lengths; accepted: at most 2147483647");
    }

    std::vector<std::int32_t> count_of(static_cast<std::size_t>(capacity) + 1, 0);
    for (std::size_t i = 0; i < count; ++i) {
        if (lengths[i] < 1 || lengths[i] > capacity) {
            throw std::invalid_argument("lengths[" + std::to_string(i) + "] is " +
                                        std::to_string(lengths[i]) + "; accepted: 1 to " +
                                        std::to_string(capacity) + " (the capacity)");
        }
        ++count_of[lengths[i]];
    }

    // Sequences of one length are alike until the last step, so lengths are placed, not sequences.
    // A bin with the least free space that fits keeps being the best fit while a further copy fits
    // (every other bin has more), so it takes all its copies at once.
    OpenBins bins(static_cast<std::int32_t>(capacity));
    std::vector<std::int32_t> sorted_bins(count);               // bins of the sorted sequences
    std::vector<std::int32_t> next_of(count_of.size());         // by length: next in sorted_bins
    std::int32_t placed = 0;
    for (auto length = static_cast<std::int32_t>(capacity); length >= 1; --length) {
        next_of[length] = placed;
        const std::int32_t end = placed + count_of[length];
        while (placed < end) {
            std::int32_t free = bins.best_fit(length);
            std::int32_t bin;
            if (free == OpenBins::kNone) {
                free = static_cast<std::int32_t>(capacity);
                bin = bins.open();
            } else {
                bin = bins.pop(free);
            }
            const std::int32_t copies = std::min(free / length, end - placed);
            std::fill_n(sorted_bins.begin() + placed, copies, bin);
            placed += copies;
            free -= copies * length;
            if (free > 0) bins.push(bin, free);
        }
    }

    // The counting sort's permutation, applied without ever being stored.
    for (std::size_t i = 0; i < count; ++i) bin_of[i] = sorted_bins[next_of[lengths[i]]++];
    return bins.count();
}

template std::int32_t pack_best_fit(const std::int32_t*, std::size_t, std::int64_t, std::int32_t*);
template std::int32_t pack_best_fit(const std::int64_t*, std::size_t, std::int64_t, std::int32_t*);

}  // namespace babyvlm
