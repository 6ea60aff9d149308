// Assignment of rows to columns by auction over short candidate lists, with a proof for all pairs.
//
// Every row keeps the columns that were best for it when its list was made, and a bound on all
// others: prices only rise, so what was not good enough then never will be. A row whose list can
// no longer prove its next move is parked until somebody makes it a new one (`begin`, `collect`,
// `finish`) at the prices of that moment.
//
// Auction: Bertsekas 1988, asymmetric form: prices start at 0, columns nobody takes stay there.
// Exact mode: the auction's matching made optimal on its lists (augmenting.cpp).

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <queue>
#include <vector>

namespace babyvlm {

constexpr double kNone = -std::numeric_limits<double>::infinity();

struct Candidate {
    std::int32_t column;
    float value;  // similarity, of float32 inputs summed in double
    float worth;  // value - price when the list was made, rounded up: never less than it is now
};

inline bool better(const Candidate& a, const Candidate& b) {
    return a.worth != b.worth ? a.worth > b.worth : a.column < b.column;
}

// The worth of a listed column, never less than it is.
inline float rounded_up(double worth) {
    return std::nextafter(static_cast<float>(worth), std::numeric_limits<float>::infinity());
}

struct List {
    std::vector<Candidate> entries;  // by falling worth, then rising column
    double outside = kNone;          // value - price of any column that is not listed is at most this
};

class Assignment {
  public:
    // rows [n, dim], columns [m, dim]: kept by reference. groups [m] or null: each column's source,
    // of which at most limits[source] columns may be taken. reject: worth of leaving a row out.
    Assignment(const float* rows, std::size_t n, const float* columns, std::size_t m,
               std::size_t dim, const std::int32_t* groups, std::vector<std::int64_t> limits,
               double reject);

    // New lists of `keep` columns for these rows, from tiles of rows x columns similarities.
    // `collect` and `finish` may run in several threads on different rows.
    void begin(const std::int32_t* rows, std::size_t count, std::size_t keep);
    void collect(std::size_t first, std::size_t count, const float* tile, std::size_t stride,
                 std::int64_t first_column, std::size_t width);
    void collect_listed(std::size_t first, std::size_t count, const float* worth,
                        const std::int64_t* column, std::size_t width);
    void finish(std::size_t first, std::size_t count);

    // A list given as it is: the row has no other columns.
    void give(std::int32_t row, const std::int32_t* columns, const float* values,
              std::size_t count);

    // Bids until every row is matched, rejected or parked, at most so many; how many were made.
    std::int64_t bid(double epsilon, std::int64_t most);

    // The exact mode, when no row waits: `unsettle`, `augment` and then `lower` until they have
    // nothing to do (at most so many paths a call), `settle`: the number of rows that it parked.
    // The matching is optimal when there are none.
    void unsettle();
    std::int64_t augment(std::int64_t most);
    std::int64_t lower(std::int64_t most);
    std::int64_t settle();

    std::vector<std::int32_t> parked() const;
    // Of these: whose list was new and still too short to prove anything.
    std::vector<std::int32_t> stuck() const;
    double total() const;  // of matched similarities, and `reject` for each row left out
    double bound() const;  // no assignment has a larger total

    double price(std::int32_t column) const {
        return groups_ == nullptr ? prices_[column]
                                  : std::max(prices_[column], levels_[groups_[column]]);
    }
    std::size_t rows() const { return n_; }
    std::size_t columns() const { return m_; }

    // All that a later process needs to go on.
    std::vector<double> prices_;         // [m]
    std::vector<double> levels_;         // price of each group's cheapest place, [groups]
    std::vector<std::int32_t> column_of_;  // [n]; -1: not yet, -2: left out
    std::vector<std::int32_t> row_of_;     // [m]; -1: free
    std::vector<double> values_;           // [n]: similarity of each row to its column
    std::vector<List> lists_;              // [n]
    std::vector<std::int8_t> parked_;      // 1: needs a new list; 2: has one since, and waits
    std::vector<std::int8_t> fresh_;       // whether no bid was made since the list was
    void requeue();  // after a change of the above: rows without a column wait again

  private:
    struct Best {
        double first = kNone, second = kNone;
        std::int32_t column = -1;
    };
    struct Node {
        double distance;
        std::int32_t column;
        bool operator>(const Node& other) const {
            return distance != other.distance ? distance > other.distance : column > other.column;
        }
    };
    struct Asker {
        std::int32_t row;
        float value;
    };
    using Places = std::priority_queue<Node, std::vector<Node>, std::greater<>>;

    Best best_of(std::int32_t row) const;
    void take(std::int32_t row, std::int32_t column, double value, double price);
    void release(std::int32_t column);
    void lift_level(std::int32_t group);
    double profit(std::int32_t row) const;
    void relist();
    bool grow(std::int32_t root);
    void turn_lists();
    void sink(std::int32_t root);
    void forget();
    float similarity(std::int32_t row, std::int32_t column) const;
    double listed(std::int32_t row, std::int32_t column) const;

    const float* row_data_;
    const float* column_data_;
    std::size_t n_, m_, dim_;
    const std::int32_t* groups_;
    std::vector<std::int64_t> limits_, taken_;
    std::vector<Places> places_;  // taken columns of each group by price, with stale entries
    double reject_, largest_column_ = 0.0;

    std::vector<std::int32_t> queue_;  // rows to serve, last first

    double tolerance_ = 0.0;           // of the exact mode: what rounding leaves of two equal worths
    std::vector<double> base_;         // prices when the lists were last brought up to date
    std::vector<double> distance_;     // of columns, in one search for a path
    std::vector<std::int32_t> from_;   // the row, or column, that reached a column
    std::vector<std::int32_t> touched_, done_;  // columns with a distance; those with the final one
    std::vector<std::int32_t> sinks_;  // free columns that still have a price
    std::vector<std::size_t> askers_;  // where a column's part of asking_ begins, [m + 1]
    std::vector<Asker> asking_;        // the rows that list a column
    bool sinking_ = false;

    // A refresh: rows, buffers of up to 2 keep candidates, worth of the keep-th best so far.
    std::vector<std::int32_t> asked_;
    std::vector<std::vector<Candidate>> found_;
    std::vector<float> least_;
    std::vector<char> cut_;  // whether any column was turned away
    std::vector<float> current_;  // prices rounded to float
    std::size_t keep_ = 0;
};

}  // namespace babyvlm
