// The exact mode of `Assignment`: what the auction left within epsilon, made exact on its lists.
//
// The auction's prices are kept and the rows that could do better at them give their columns up.
// Forward: shortest augmenting paths from those rows to free columns (Jonker and Volgenant 1987).
// Backward: a column that is free must have price 0 in the end; where it has not, the shortest
// path of exchanges from it to a column whose price can fall to 0 (or to a row left out).
// Prices fall there, so the bounds on what is not listed widen; rows whose bound no longer proves
// their column the best are parked, and get new lists at the prices of that moment.

#include <algorithm>
#include <cmath>
#include <queue>

#include "matching.hpp"

namespace babyvlm {

namespace {

constexpr double kFar = std::numeric_limits<double>::infinity();

}  // namespace

double Assignment::profit(std::int32_t row) const {
    const std::int32_t column = column_of_[row];
    return column >= 0 ? values_[row] - prices_[column] : reject_;
}

void Assignment::relist() {
    double fall = 0.0;
    for (std::size_t j = 0; j < m_ && !base_.empty(); ++j) {
        fall = std::max(fall, base_[j] - prices_[j]);
    }
    for (List& list : lists_) {
        for (Candidate& one : list.entries) {
            one.worth = rounded_up(double(one.value) - prices_[one.column]);
        }
        std::sort(list.entries.begin(), list.entries.end(), better);
        list.outside += fall;
    }
    base_ = prices_;
}

void Assignment::unsettle() {
    relist();
    queue_.clear();
    double largest = 0.0;
    for (const List& list : lists_) {
        for (const Candidate& one : list.entries) {
            largest = std::max(largest, std::abs(double(one.value)));
        }
    }
    tolerance_ = 1e-11 * largest;
    for (std::size_t i = n_; i-- > 0;) {
        const auto row = static_cast<std::int32_t>(i);
        parked_[i] = 0;
        if (std::max(best_of(row).first, reject_) <= profit(row) + tolerance_) continue;
        if (column_of_[i] >= 0) row_of_[column_of_[i]] = -1;
        column_of_[i] = -1;
        queue_.push_back(row);
    }
}

bool Assignment::grow(std::int32_t root) {
    Places heap;
    double best = kFar, at = 0.0;
    std::int32_t end_column = -1, end_row = -1;

    const auto scan = [&](std::int32_t row, double worth) {
        const double base = at + worth;
        if (base - reject_ < best) {
            best = base - reject_;
            end_row = row;
            end_column = -1;
        }
        for (const Candidate& one : lists_[row].entries) {
            if (base - one.worth >= best) break;
            const double distance = std::max(at, base - (double(one.value) - prices_[one.column]));
            if (distance >= distance_[one.column] || distance >= best) continue;
            if (distance_[one.column] == kFar) touched_.push_back(one.column);
            distance_[one.column] = distance;
            from_[one.column] = row;
            if (row_of_[one.column] >= 0) {
                heap.push({distance, one.column});
            } else {
                best = distance;
                end_column = one.column;
                end_row = -1;
            }
        }
    };

    distance_.resize(m_, kFar);
    from_.resize(m_, -1);
    scan(root, std::max(best_of(root).first, reject_));
    while (!heap.empty() && heap.top().distance < best) {
        const Node node = heap.top();
        heap.pop();
        if (node.distance > distance_[node.column]) continue;
        at = node.distance;
        done_.push_back(node.column);
        scan(row_of_[node.column], profit(row_of_[node.column]));
    }

    if (best < kFar) {
        for (const std::int32_t column : done_) prices_[column] += best - distance_[column];
        std::int32_t column = end_column;
        if (end_row >= 0) {  // this row leaves its column to the path and is left out
            column = column_of_[end_row];
            column_of_[end_row] = -2;
        }
        while (column >= 0) {
            const std::int32_t row = from_[column];
            const std::int32_t before = column_of_[row];
            row_of_[column] = row;
            column_of_[row] = column;
            values_[row] = listed(row, column);
            column = row == root ? -1 : before;
        }
    }
    forget();
    return best < kFar;
}

void Assignment::forget() {
    for (const std::int32_t column : touched_) distance_[column] = kFar;
    touched_.clear();
    done_.clear();
}

double Assignment::listed(std::int32_t row, std::int32_t column) const {
    for (const Candidate& one : lists_[row].entries) {
        if (one.column == column) return one.value;
    }
    return values_[row];
}

std::int64_t Assignment::augment(std::int64_t most) {
    std::int64_t made = 0;
    for (; made < most && !queue_.empty(); ++made) {
        const std::int32_t row = queue_.back();
        queue_.pop_back();
        if (!grow(row)) column_of_[row] = -2;
    }
    return made;
}

// Who lists a column, for the columns that have a price.
void Assignment::turn_lists() {
    askers_.assign(m_ + 1, 0);
    const auto each = [&](const auto& visit) {
        for (std::size_t i = 0; i < n_; ++i) {
            for (const Candidate& one : lists_[i].entries) {
                if (prices_[one.column] > 0.0) visit(static_cast<std::int32_t>(i), one);
            }
        }
    };
    each([&](std::int32_t, const Candidate& one) { ++askers_[one.column + 1]; });
    for (std::size_t j = 0; j < m_; ++j) askers_[j + 1] += askers_[j];
    asking_.resize(askers_[m_]);
    std::vector<std::size_t> next(askers_.begin(), askers_.end() - 1);
    each([&](std::int32_t row, const Candidate& one) {
        asking_[next[one.column]++] = {row, one.value};
    });
}

void Assignment::sink(std::int32_t root) {
    Places heap;
    double best = prices_[root];
    std::int32_t end_column = root, end_row = -1;

    distance_.resize(m_, kFar);
    from_.resize(m_, -1);
    distance_[root] = 0.0;
    touched_.push_back(root);
    heap.push({0.0, root});
    while (!heap.empty() && heap.top().distance < best) {
        const Node node = heap.top();
        heap.pop();
        if (node.distance > distance_[node.column]) continue;
        done_.push_back(node.column);
        const double price = prices_[node.column];
        for (std::size_t k = askers_[node.column]; k < askers_[node.column + 1]; ++k) {
            const auto [row, value] = asking_[k];
            if (row == row_of_[node.column]) continue;
            const double slack = std::max(0.0, profit(row) - (double(value) - price));
            const double distance = node.distance + slack;
            if (distance >= best) continue;
            const std::int32_t own = column_of_[row];
            if (own < 0) {  // a row left out takes it
                best = distance;
                end_row = row;
                end_column = node.column;
                continue;
            }
            if (distance >= distance_[own]) continue;
            if (distance_[own] == kFar) touched_.push_back(own);
            distance_[own] = distance;
            from_[own] = node.column;
            heap.push({distance, own});
            if (distance + prices_[own] < best) {
                best = distance + prices_[own];
                end_row = -1;
                end_column = own;
            }
        }
    }

    for (const std::int32_t column : done_) {
        prices_[column] = std::max(0.0, prices_[column] - (best - distance_[column]));
    }
    if (end_row < 0) prices_[end_column] = 0.0;
    // From the end back to the root, each row moves to the column that asked for it.
    std::int32_t column = end_column, row = end_row >= 0 ? end_row : row_of_[end_column];
    if (end_row < 0) {
        row_of_[column] = -1;
        column = from_[column];
        if (end_column == root) column = -1;
    }
    while (column >= 0) {
        const std::int32_t before = row_of_[column];
        values_[row] = listed(row, column);
        column_of_[row] = column;
        row_of_[column] = row;
        row = before;
        column = column == root ? -1 : from_[column];
    }
    forget();
}

std::int64_t Assignment::lower(std::int64_t most) {
    if (!sinking_) {
        for (std::size_t j = m_; j-- > 0;) {
            if (row_of_[j] < 0 && prices_[j] > 0.0) sinks_.push_back(static_cast<std::int32_t>(j));
        }
        if (sinks_.empty()) return 0;
        turn_lists();
        sinking_ = true;
    }
    std::int64_t made = 0;
    for (; made < most && !sinks_.empty(); ++made) {
        const std::int32_t column = sinks_.back();
        sinks_.pop_back();
        sink(column);
    }
    if (sinks_.empty()) {
        sinking_ = false;
        askers_ = {};
        asking_ = {};
    }
    return made;
}

std::int64_t Assignment::settle() {
    relist();
    std::int64_t open = 0;
    for (std::size_t i = 0; i < n_; ++i) {
        const auto row = static_cast<std::int32_t>(i);
        const double most = std::max(best_of(row).first, lists_[i].outside);
        parked_[i] = most > profit(row) + tolerance_ ? 1 : 0;
        open += parked_[i];
    }
    return open;
}

}  // namespace babyvlm
