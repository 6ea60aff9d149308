// Python's view of `Assignment`: arrays in, arrays out, the lock released while C++ works.

#include "bind_matching.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>

#include "matching.hpp"

namespace py = pybind11;

namespace {

using babyvlm::Assignment;
template <typename T>
using Array = py::array_t<T, py::array::c_style>;

void require(bool good, const char* what) {
    if (!good) throw py::value_error(what);
}

template <typename T>
Array<T> copy(const std::vector<T>& from) {
    return Array<T>(static_cast<py::ssize_t>(from.size()), from.data());
}

template <typename T>
void restore(std::vector<T>& to, const Array<T>& from, const char* name) {
    require(static_cast<std::size_t>(from.size()) == to.size(), name);
    std::copy_n(from.data(), to.size(), to.begin());
}

// The arrays that C++ points into live as long as this.
struct Held {
    Array<float> rows, columns;
    Array<std::int32_t> groups;
    std::unique_ptr<Assignment> it;
};

std::unique_ptr<Held> make(Array<float> rows, Array<float> columns, Array<std::int32_t> groups,
                           const std::vector<std::int64_t>& limits, double reject) {
    require(rows.ndim() == 2 && columns.ndim() == 2 && rows.shape(1) == columns.shape(1),
            "rows and columns: float32 [n, d] and [m, d] expected");
    require(groups.size() == 0 || groups.size() == columns.shape(0), "groups: one a column");
    for (py::ssize_t j = 0; j < groups.size(); ++j) {
        require(groups.data()[j] >= 0 &&
                    static_cast<std::size_t>(groups.data()[j]) < limits.size(),
                "groups: each in [0, number of limits)");
    }
    auto held = std::make_unique<Held>();
    held->rows = rows;
    held->columns = columns;
    held->groups = groups;
    held->it = std::make_unique<Assignment>(
        rows.data(), rows.shape(0), columns.data(), columns.shape(0), rows.shape(1),
        groups.size() ? groups.data() : nullptr,
        groups.size() ? limits : std::vector<std::int64_t>{}, reject);
    return held;
}

void begin(Held& held, const Array<std::int32_t>& rows, std::size_t keep) {
    for (py::ssize_t i = 0; i < rows.size(); ++i) {
        require(rows.data()[i] >= 0 && rows.data()[i] < held.rows.shape(0), "rows: out of range");
    }
    held.it->begin(rows.data(), rows.size(), keep);
}

void collect(Held& held, std::size_t first, const Array<float>& tile, std::int64_t column,
             std::size_t width) {
    require(tile.ndim() == 2 && width <= static_cast<std::size_t>(tile.shape(1)) &&
                column + static_cast<std::int64_t>(width) <= held.columns.shape(0),
            "tile: [rows, width] within the columns expected");
    const std::size_t count = tile.shape(0), stride = tile.shape(1);
    const float* data = tile.data();
    py::gil_scoped_release release;
    held.it->collect(first, count, data, stride, column, width);
}

void collect_listed(Held& held, std::size_t first, const Array<float>& worth,
                    const Array<std::int64_t>& column) {
    require(worth.ndim() == 2 && column.ndim() == 2 && worth.shape(0) == column.shape(0) &&
                worth.shape(1) == column.shape(1),
            "worth and column: equal shapes [rows, k] expected");
    held.it->collect_listed(first, worth.shape(0), worth.data(), column.data(), worth.shape(1));
}

void finish(Held& held, std::size_t first, std::size_t count) {
    py::gil_scoped_release release;
    held.it->finish(first, count);
}

void give(Held& held, const Array<std::int64_t>& starts, const Array<std::int32_t>& columns,
          const Array<float>& values) {
    require(starts.size() == static_cast<py::ssize_t>(held.it->rows()) + 1 &&
                columns.size() == values.size() && starts.data()[starts.size() - 1] == values.size(),
            "starts, columns, values: rows of a sparse matrix expected");
    for (py::ssize_t k = 0; k < columns.size(); ++k) {
        require(columns.data()[k] >= 0 && columns.data()[k] < held.columns.shape(0),
                "columns: out of range");
    }
    for (py::ssize_t i = 0; i + 1 < starts.size(); ++i) {
        const auto from = starts.data()[i], to = starts.data()[i + 1];
        held.it->give(static_cast<std::int32_t>(i), columns.data() + from, values.data() + from,
                      static_cast<std::size_t>(to - from));
    }
}

py::dict state(const Held& held) {
    const Assignment& a = *held.it;
    std::vector<std::int64_t> starts{0};
    std::vector<std::int32_t> columns;
    std::vector<float> values, worth;
    std::vector<double> outside;
    for (const auto& list : a.lists_) {
        for (const auto& one : list.entries) {
            columns.push_back(one.column);
            values.push_back(one.value);
            worth.push_back(one.worth);
        }
        starts.push_back(static_cast<std::int64_t>(columns.size()));
        outside.push_back(list.outside);
    }
    py::dict found;
    found["prices"] = copy(a.prices_);
    found["levels"] = copy(a.levels_);
    found["column_of"] = copy(a.column_of_);
    found["row_of"] = copy(a.row_of_);
    found["similarity"] = copy(a.values_);
    found["parked"] = copy(a.parked_);
    found["fresh"] = copy(a.fresh_);
    found["starts"] = copy(starts);
    found["columns"] = copy(columns);
    found["values"] = copy(values);
    found["worth"] = copy(worth);
    found["outside"] = copy(outside);
    return found;
}

template <typename T>
Array<T> named(const py::dict& from, const char* name) {
    return py::cast<Array<T>>(from[name]);
}

void set_state(Held& held, const py::dict& from) {
    Assignment& a = *held.it;
    restore(a.prices_, named<double>(from, "prices"), "prices");
    restore(a.levels_, named<double>(from, "levels"), "levels");
    restore(a.column_of_, named<std::int32_t>(from, "column_of"), "column_of");
    restore(a.row_of_, named<std::int32_t>(from, "row_of"), "row_of");
    restore(a.values_, named<double>(from, "similarity"), "similarity");
    restore(a.parked_, named<std::int8_t>(from, "parked"), "parked");
    restore(a.fresh_, named<std::int8_t>(from, "fresh"), "fresh");
    const auto starts = named<std::int64_t>(from, "starts");
    const auto columns = named<std::int32_t>(from, "columns");
    const auto values = named<float>(from, "values");
    const auto worth = named<float>(from, "worth");
    const auto outside = named<double>(from, "outside");
    require(starts.size() == static_cast<py::ssize_t>(a.rows()) + 1 &&
                outside.size() == static_cast<py::ssize_t>(a.rows()) &&
                columns.size() == values.size() && columns.size() == worth.size() &&
                starts.data()[a.rows()] == columns.size(),
            "lists: sizes do not agree");
    for (std::size_t i = 0; i < a.rows(); ++i) {
        auto& list = a.lists_[i];
        list.entries.clear();
        for (auto k = starts.data()[i]; k < starts.data()[i + 1]; ++k) {
            list.entries.push_back({columns.data()[k], values.data()[k], worth.data()[k]});
        }
        list.outside = outside.data()[i];
    }
    a.requeue();
}

}  // namespace

void bind_matching(py::module_& module) {
    py::class_<Held>(module, "Assignment", "See csrc/matching.hpp.")
        .def(py::init(&make), py::arg("rows"), py::arg("columns"), py::arg("groups"),
             py::arg("limits"), py::arg("reject"))
        .def("begin", &begin, py::arg("rows"), py::arg("keep"))
        .def("collect", &collect, py::arg("first"), py::arg("tile"), py::arg("column"),
             py::arg("width"))
        .def("collect_listed", &collect_listed, py::arg("first"), py::arg("worth"),
             py::arg("column"))
        .def("finish", &finish, py::arg("first"), py::arg("count"))
        .def("give", &give, py::arg("starts"), py::arg("columns"), py::arg("values"))
        .def("bid", [](Held& h, double epsilon, std::int64_t most) {
                 py::gil_scoped_release release;
                 return h.it->bid(epsilon, most);
             }, py::arg("epsilon"), py::arg("most"))
        .def("unsettle", [](Held& h) {
                 py::gil_scoped_release release;
                 h.it->unsettle();
             })
        .def("augment", [](Held& h, std::int64_t most) {
                 py::gil_scoped_release release;
                 return h.it->augment(most);
             }, py::arg("most"))
        .def("lower", [](Held& h, std::int64_t most) {
                 py::gil_scoped_release release;
                 return h.it->lower(most);
             }, py::arg("most"))
        .def("settle", [](Held& h) {
                 py::gil_scoped_release release;
                 return h.it->settle();
             })
        .def("parked", [](const Held& h) { return copy(h.it->parked()); })
        .def("stuck", [](const Held& h) { return copy(h.it->stuck()); })
        .def("total", [](const Held& h) { return h.it->total(); })
        .def("bound", [](const Held& h) { return h.it->bound(); })
        .def("prices", [](const Held& h) {
                 Array<double> out(static_cast<py::ssize_t>(h.it->columns()));
                 for (std::size_t j = 0; j < h.it->columns(); ++j) {
                     out.mutable_data()[j] = h.it->price(static_cast<std::int32_t>(j));
                 }
                 return out;
             })
        .def("levels", [](const Held& h) { return copy(h.it->levels_); })
        .def("column_of", [](const Held& h) { return copy(h.it->column_of_); })
        .def("similarity", [](const Held& h) { return copy(h.it->values_); })
        .def("state", &state)
        .def("set_state", &set_state, py::arg("state"));
}
