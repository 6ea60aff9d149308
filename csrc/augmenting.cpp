// The exact mode of `Assignment`: shortest augmenting paths over lists that grow when they must.

#include <algorithm>
#include <queue>

#include "matching.hpp"

namespace babyvlm {

namespace {

constexpr double kFar = std::numeric_limits<double>::infinity();

}  // namespace

// Rows take their best column and raise its price to what makes the second best as good: most rows
// need no path then (Jonker and Volgenant's augmenting row reduction).
void Assignment::reduce_rows() {
    std::vector<std::int32_t> left;
    std::int64_t moves = 4 * static_cast<std::int64_t>(n_);
    while (!queue_.empty() && moves-- > 0) {
        const std::int32_t row = queue_.back();
        queue_.pop_back();
        const Best best = best_of(row);
        const double outside = lists_[row].outside;
        const double second = std::max({best.second, outside, reject_});
        const bool certain = best.column >= 0 && best.first >= second;
        // A tie with a taken column would only hand the place around.
        if (!certain || (row_of_[best.column] >= 0 && best.first == second)) {
            left.push_back(row);
            continue;
        }
        const double now = price(best.column), value = best.first + now;
        take(row, best.column, value, second == kNone ? now : value - second);
    }
    queue_.insert(queue_.end(), left.rbegin(), left.rend());
}

Assignment::Path Assignment::grow(std::int32_t root) {
    struct Visit {
        std::int32_t row;
        double lower;  // distance of the nearest column that the row's list may lack
    };
    std::priority_queue<Node, std::vector<Node>, std::greater<>> heap;
    std::vector<Visit> tree;
    const Best own = best_of(root);
    double best = kFar, least_lower = kFar, at = 0.0;
    std::int32_t end_column = -1, end_row = -1;

    const auto scan = [&](std::int32_t row, double worth) {
        const List& list = lists_[row];
        const double base = at + worth;
        if (base - reject_ < best) {
            best = base - reject_;
            end_row = row;
            end_column = -1;
        }
        for (const Candidate& one : list.entries) {
            if (base - one.worth >= best) break;
            const double distance = std::max(at, base - (double(one.value) - prices_[one.column]));
            if (distance >= distance_[one.column]) continue;
            if (distance_[one.column] == kFar) touched_.push_back(one.column);
            distance_[one.column] = distance;
            from_[one.column] = row;
            if (row_of_[one.column] >= 0) {
                heap.push({distance, one.column});
            } else if (distance < best) {
                best = distance;
                end_column = one.column;
                end_row = -1;
            }
        }
        tree.push_back({row, base - list.outside});
        least_lower = std::min(least_lower, tree.back().lower);
    };

    distance_.resize(m_, kFar);
    from_.resize(m_, -1);
    scan(root, std::max(own.first, reject_));
    while (!heap.empty() && heap.top().distance < best && least_lower >= at) {
        const Node node = heap.top();
        heap.pop();
        if (node.distance > distance_[node.column]) continue;
        at = node.distance;
        done_.push_back(node.column);
        const std::int32_t row = row_of_[node.column];
        scan(row, values_[row] - prices_[node.column]);
    }

    const bool proven = least_lower >= best && best < kFar;
    if (proven) {
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
    } else {
        const double until = std::min(best, std::max(at, least_lower));
        for (const Visit& visit : tree) {
            if (visit.lower <= until && lists_[visit.row].outside != kNone) parked_[visit.row] = 1;
        }
    }
    for (const std::int32_t column : touched_) distance_[column] = kFar;
    touched_.clear();
    done_.clear();
    if (proven) return Path::found;
    return best == kFar && least_lower == kFar ? Path::none : Path::wants_list;
}

double Assignment::listed(std::int32_t row, std::int32_t column) const {
    for (const Candidate& one : lists_[row].entries) {
        if (one.column == column) return one.value;
    }
    return values_[row];
}

std::int64_t Assignment::augment(std::int64_t most) {
    if (std::find(parked_.begin(), parked_.end(), 2) != parked_.end()) {
        queue_.clear();
        deferred_.clear();
        for (std::size_t i = n_; i-- > 0;) {
            if (parked_[i] == 2) parked_[i] = 0;
            if (column_of_[i] == -1 && parked_[i] == 0) queue_.push_back(static_cast<std::int32_t>(i));
        }
    }
    if (!reduced_) {
        reduce_rows();
        reduced_ = true;
    }
    std::int64_t made = 0;
    for (; made < most && !queue_.empty(); ++made) {
        const std::int32_t row = queue_.back();
        queue_.pop_back();
        const Path path = grow(row);
        if (path == Path::wants_list) deferred_.push_back(row);
        if (path == Path::none) column_of_[row] = -2;
    }
    return made;
}

}  // namespace babyvlm
