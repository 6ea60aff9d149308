#include "matching.hpp"

#include <cmath>
#include <stdexcept>
#include <string>

namespace babyvlm {

namespace {

constexpr double kForbidden = 1e30;  // a price nobody pays
constexpr std::size_t kStep = 64;    // columns looked at together
constexpr float kUlp = 0x1p-24f;     // relative error of one float32 operation

// First step from `from` on in which a worth above `least` may be; `width` when there is none.
#if defined(__linux__) && defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
std::size_t next_step(const float* similarity, const float* price, std::size_t from,
                      std::size_t width, float least) {
    std::size_t at = from;
    for (; at + kStep <= width; at += kStep) {
        int any = 0;
        for (std::size_t k = 0; k < kStep; ++k) {
            any |= similarity[at + k] - price[at + k] > least;
        }
        if (any != 0) return at;
    }
    return at;
}

void cut_to(std::vector<Candidate>& found, std::size_t keep) {
    std::nth_element(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(keep - 1),
                     found.end(), better);
    found.resize(keep);
}

}  // namespace

Assignment::Assignment(const float* rows, std::size_t n, const float* columns, std::size_t m,
                       std::size_t dim, const std::int32_t* groups,
                       std::vector<std::int64_t> limits, double reject)
    : prices_(m, 0.0), levels_(limits.size(), 0.0), column_of_(n, -1), row_of_(m, -1),
      values_(n, 0.0), lists_(n), parked_(n, 1), fresh_(n, 0), row_data_(rows),
      column_data_(columns), n_(n), m_(m), dim_(dim), groups_(groups), limits_(std::move(limits)),
      reject_(reject) {
    for (std::size_t j = 0; j < m && dim > 0; ++j) {
        double sum = 0.0;
        for (std::size_t k = 0; k < dim; ++k) sum += double(columns[j * dim + k]) * columns[j * dim + k];
        largest_column_ = std::max(largest_column_, std::sqrt(sum));
    }
    requeue();
}

void Assignment::requeue() {
    queue_.clear();
    taken_.assign(limits_.size(), 0);
    places_.assign(limits_.size(), Places());
    for (std::size_t g = 0; g < limits_.size(); ++g) {
        if (limits_[g] == 0) levels_[g] = kForbidden;
    }
    for (std::size_t j = 0; j < m_ && groups_ != nullptr; ++j) {
        if (row_of_[j] < 0) continue;
        ++taken_[groups_[j]];
        places_[groups_[j]].push({prices_[j], static_cast<std::int32_t>(j)});
    }
    for (std::size_t i = n_; i-- > 0;) {
        if (column_of_[i] == -1 && parked_[i] == 0) queue_.push_back(static_cast<std::int32_t>(i));
    }
}

float Assignment::similarity(std::int32_t row, std::int32_t column) const {
    const float* a = row_data_ + static_cast<std::size_t>(row) * dim_;
    const float* b = column_data_ + static_cast<std::size_t>(column) * dim_;
    double lanes[8] = {};
    std::size_t k = 0;
    for (; k + 8 <= dim_; k += 8) {
        for (std::size_t lane = 0; lane < 8; ++lane) lanes[lane] += double(a[k + lane]) * b[k + lane];
    }
    for (; k < dim_; ++k) lanes[k % 8] += double(a[k]) * b[k];
    return static_cast<float>(((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) +
                              ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7])));
}

void Assignment::begin(const std::int32_t* rows, std::size_t count, std::size_t keep) {
    keep_ = std::min(std::max<std::size_t>(keep, 1), std::max<std::size_t>(m_, 1));
    asked_.assign(rows, rows + count);
    found_.assign(count, {});
    least_.assign(count, -std::numeric_limits<float>::infinity());
    cut_.assign(count, 0);
    current_.resize(m_);
    for (std::size_t j = 0; j < m_; ++j) {
        const double now = price(static_cast<std::int32_t>(j));
        current_[j] = now < kForbidden ? static_cast<float>(now)
                                       : std::numeric_limits<float>::infinity();
    }
}

void Assignment::collect(std::size_t first, std::size_t count, const float* tile,
                         std::size_t stride, std::int64_t first_column, std::size_t width) {
    const float* price = current_.data() + first_column;
    for (std::size_t r = 0; r < count; ++r) {
        const float* line = tile + r * stride;
        auto& found = found_[first + r];
        float least = least_[first + r];
        for (std::size_t at = 0; (at = next_step(line, price, at, width, least)) < width;) {
            const std::size_t end = std::min(at + kStep, width);
            for (; at < end; ++at) {
                const float worth = line[at] - price[at];
                if (!(worth > least)) continue;
                found.push_back({static_cast<std::int32_t>(first_column + at), 0.0f, worth});
                if (found.size() == 2 * keep_) {
                    cut_to(found, keep_);
                    least = found[keep_ - 1].worth;
                    cut_[first + r] = 1;
                }
            }
        }
        least_[first + r] = least;
    }
}

void Assignment::collect_listed(std::size_t first, std::size_t count, const float* worth,
                                const std::int64_t* column, std::size_t width) {
    for (std::size_t r = 0; r < count; ++r) {
        auto& found = found_[first + r];
        for (std::size_t k = 0; k < width; ++k) {
            const float now = worth[r * width + k];
            if (now == -std::numeric_limits<float>::infinity()) continue;
            found.push_back({static_cast<std::int32_t>(column[r * width + k]), 0.0f, now});
        }
        // What was not handed over is no better than the keep-th that was.
        if (width >= keep_) cut_[first + r] = 1;
        if (found.size() > keep_) {
            cut_to(found, keep_);
            cut_[first + r] = 1;
        }
    }
}

void Assignment::finish(std::size_t first, std::size_t count) {
    for (std::size_t r = first; r < first + count; ++r) {
        auto& found = found_[r];
        const std::int32_t row = asked_[r];
        if (found.size() > keep_) {
            cut_to(found, keep_);
            cut_[r] = 1;
        }
        double norm = 0.0, least = std::numeric_limits<double>::infinity();
        for (std::size_t k = 0; k < dim_; ++k) {
            const double x = row_data_[static_cast<std::size_t>(row) * dim_ + k];
            norm += x * x;
        }
        List list;
        for (Candidate& one : found) {
            least = std::min(least, double(one.worth));
            one.value = similarity(row, one.column);
            one.worth = rounded_up(double(one.value) - price(one.column));
        }
        const std::int32_t own = column_of_[row];  // in the exact mode rows keep what they have
        if (own >= 0 && std::none_of(found.begin(), found.end(),
                                     [&](const Candidate& one) { return one.column == own; })) {
            const auto value = static_cast<float>(values_[row]);
            found.push_back({own, value, rounded_up(values_[row] - price(own))});
        }
        std::sort(found.begin(), found.end(), better);
        list.entries.assign(found.begin(), found.end());
        if (cut_[r]) {
            // A tile's numbers carry the rounding of a float32 product of dim terms (and of the
            // subtracted price), whichever way the library sums.
            const double size = std::sqrt(norm) * largest_column_;
            list.outside = least + kUlp * ((double(dim_) + 2) * size + 4 * (std::abs(least) + size));
        }
        lists_[row] = std::move(list);
        fresh_[row] = 1;
        found = {};
        if (parked_[row]) parked_[row] = 2;  // whoever solves next looks what waited for it
    }
}

void Assignment::give(std::int32_t row, const std::int32_t* columns, const float* values,
                      std::size_t count) {
    List list;
    for (std::size_t k = 0; k < count; ++k) {
        const float worth = rounded_up(double(values[k]) - price(columns[k]));
        list.entries.push_back({columns[k], values[k], worth});
    }
    std::sort(list.entries.begin(), list.entries.end(), better);
    lists_[row] = std::move(list);
    parked_[row] = 2;
}

std::vector<std::int32_t> Assignment::parked() const {
    std::vector<std::int32_t> found;
    for (std::size_t i = 0; i < n_; ++i) {
        if (parked_[i] == 1) found.push_back(static_cast<std::int32_t>(i));
    }
    return found;
}

std::vector<std::int32_t> Assignment::stuck() const {
    std::vector<std::int32_t> found = parked();
    std::erase_if(found, [&](std::int32_t row) { return fresh_[row] == 0; });
    return found;
}

Assignment::Best Assignment::best_of(std::int32_t row) const {
    Best best;
    for (const Candidate& one : lists_[row].entries) {
        if (one.worth <= best.second) break;
        const double now = double(one.value) - price(one.column);
        if (now > best.first) {
            best.second = best.first;
            best.first = now;
            best.column = one.column;
        } else if (now > best.second) {
            best.second = now;
        }
    }
    return best;
}

void Assignment::lift_level(std::int32_t group) {
    Places& places = places_[group];
    while (!places.empty()) {
        const Node top = places.top();
        if (row_of_[top.column] >= 0 && prices_[top.column] == top.distance) {
            levels_[group] = std::max(levels_[group], top.distance);
            return;
        }
        places.pop();
    }
}

void Assignment::release(std::int32_t column) {
    const std::int32_t row = row_of_[column];
    row_of_[column] = -1;
    column_of_[row] = -1;
    queue_.push_back(row);
}

void Assignment::take(std::int32_t row, std::int32_t column, double value, double price) {
    const std::int32_t group = groups_ == nullptr ? -1 : groups_[column];
    if (row_of_[column] >= 0) {
        release(column);
    } else if (group >= 0) {
        if (taken_[group] == limits_[group]) {
            lift_level(group);  // drops stale entries: the top is the cheapest taken place
            release(places_[group].top().column);
        } else {
            ++taken_[group];
        }
    }
    row_of_[column] = row;
    column_of_[row] = column;
    values_[row] = value;
    prices_[column] = price;
    if (group >= 0) {
        places_[group].push({price, column});
        if (taken_[group] == limits_[group]) lift_level(group);
    }
}

std::int64_t Assignment::bid(double epsilon, std::int64_t most) {
    for (std::size_t i = n_; i-- > 0;) {
        if (parked_[i] != 2) continue;
        parked_[i] = 0;
        if (column_of_[i] == -1) queue_.push_back(static_cast<std::int32_t>(i));
    }
    std::int64_t made = 0;
    for (; made < most && !queue_.empty(); ++made) {
        const std::int32_t row = queue_.back();
        queue_.pop_back();
        const Best best = best_of(row);
        const double outside = lists_[row].outside;
        // A bid against what is not listed is sound if it raises the price. A better list would
        // make a better bid, unless this one is new: then ties with its end decide nothing.
        const double margin = fresh_[row] ? -0.5 * epsilon : best.second < outside ? epsilon : 0.0;
        if (best.first < outside + margin && !(reject_ >= outside && reject_ >= best.first)) {
            parked_[row] = 1;
            continue;
        }
        if (best.column < 0 || reject_ >= best.first || best.first < -0.5 * kForbidden) {
            column_of_[row] = -2;  // prices only rise: for good
            continue;
        }
        const double second = std::max({best.second, outside, reject_});
        const double now = price(best.column), value = best.first + now;
        fresh_[row] = 0;
        // With nothing else to go to, the row stays whatever others bid.
        take(row, best.column, value, second == kNone ? kForbidden : value - second + epsilon);
    }
    return made;
}

double Assignment::total() const {
    double sum = 0.0;
    for (std::size_t i = 0; i < n_; ++i) {
        if (column_of_[i] >= 0) sum += values_[i];
        if (column_of_[i] == -2 && reject_ != kNone) sum += reject_;
    }
    return sum;
}

double Assignment::bound() const {
    double sum = 0.0;
    for (std::size_t i = 0; i < n_; ++i) {
        if (column_of_[i] >= 0 && prices_[column_of_[i]] >= kForbidden) {
            sum += values_[i];  // it has no other column: what it bids is what it pays
            continue;
        }
        const Best best = best_of(static_cast<std::int32_t>(i));
        sum += std::max({best.first, lists_[i].outside, reject_});
    }
    for (std::size_t g = 0; g < limits_.size(); ++g) {
        if (limits_[g] > 0) sum += double(limits_[g]) * levels_[g];
    }
    for (std::size_t j = 0; j < m_; ++j) {
        const double level = groups_ == nullptr ? 0.0 : levels_[groups_[j]];
        if (level < kForbidden && prices_[j] < kForbidden) sum += std::max(prices_[j] - level, 0.0);
    }
    return sum;
}

}  // namespace babyvlm
